"""Streams come and go while the link breaks again and again: nothing is left over."""

from __future__ import annotations

import random

import coredis
import pytest
import trio

from tests.admission.gates import GateMaker, until, until_async
from tests.admission.valkey import Proxy, Server, proxied
from trio_ai_stream.admission.gate import Permit, StreamPermits
from trio_ai_stream.admission.shared.shared_gate import SharedGate


async def come_and_go(gate: SharedGate, dice: random.Random, rounds: int) -> None:
    """Hold streams for a moment each; some are cancelled while they ask."""
    for number in range(rounds):
        with trio.move_on_after(dice.choice([0.0005, 0.002, 1])):
            answer = await gate.acquire_stream(f"c{number % 3}", f"{id(dice)}-{number}")
            if isinstance(answer, Permit):
                try:
                    await trio.sleep(dice.random() * 0.01)
                finally:
                    answer.release()


@pytest.mark.parametrize("seed", range(3))
async def test_no_permit_is_lost_or_kept_whatever_happens(
    valkey: Server, make_gate: GateMaker, seed: int
) -> None:
    """After cancels and partitions both books are empty, and so is Valkey's."""
    dice = random.Random(seed)
    client = coredis.Redis.from_url(valkey.url)

    async def shake(proxy: Proxy) -> None:
        for _ in range(4):
            await trio.sleep(dice.random() * 0.1)
            proxy.silent = True
            await trio.sleep(dice.random() * 0.1)
            proxy.silent = False

    async with (
        client,
        proxied(valkey) as near,
        proxied(valkey) as far,
        trio.open_nursery() as nursery,
    ):
        gates = [
            make_gate(proxy.url, permits=StreamPermits(8), timeout_s=0.05, lease_s=3.0)
            for proxy in (near, far)
        ]
        for gate in gates:
            await nursery.start(gate.run)
        with trio.fail_after(20):
            async with trio.open_nursery() as work:
                work.start_soon(shake, near)
                work.start_soon(shake, far)
                for gate in gates * 4:
                    work.start_soon(come_and_go, gate, random.Random(dice.random()), 40)
        await until(lambda: all(gate.link.up for gate in gates))
        _, streams, clients, _ = gates[0].keys.permits
        await until_async(lambda: client.hlen(streams), 0)
        assert await client.hlen(clients) == 0
        assert [gate.status().held for gate in gates] == [0, 0]
        assert [len(gate.leases) for gate in gates] == [0, 0]
        nursery.cancel_scope.cancel(reason="the test is over")

"""What Valkey may lose of the permits while it runs: no place is taken for ever."""

from __future__ import annotations

import time

import coredis
import pytest
import trio

from tests.admission.gates import GateMaker, connected, granted, until_async
from tests.admission.valkey import Server
from trio_ai_stream.admission.shared.shared_gate import SharedGate

OWN = 3
"""Where the key of a process's own streams is among those of its permits."""


@pytest.mark.parametrize("lost", range(4))
async def test_a_key_that_is_evicted_is_put_in_again(
    lost: int, any_server: Server, make_gate: GateMaker
) -> None:
    """What lives counts, for all and for its client; what was killed does not."""
    options = {"lease_s": 1.0, "timeout_s": 5.0}
    async with connected(any_server, make_gate, **options) as (gate, client):
        async with connected(any_server, make_gate, **options) as (killed, _):
            for number in range(2):
                await granted(killed, "ann", f"killed-{number}")
        permits = [await granted(gate, "ann", f"lives-{number}") for number in range(2)]
        await client.delete([killed.keys.permits[lost]])
        await until_async(lambda: counted(gate, client), {b"ann": b"2"})
        permits.pop().release()
        await until_async(lambda: counted(gate, client), {b"ann": b"1"})
        await client.delete([gate.keys.permits[lost]])
        await until_async(lambda: counted(gate, client), {b"ann": b"1"})
        permits.pop().release()
        await until_async(lambda: counted(gate, client), {})


async def test_a_killed_process_is_taken_out_to_its_last_stream(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Also if that takes longer than its own key would last.

    The rest of it counted until no process had come for four leases.
    """
    async with connected(valkey, make_gate, lease_s=1.0, timeout_s=5.0) as (gate, seen):
        ids = [f"s{number}" for number in range(6000)]
        processes, streams, clients, _ = gate.keys.permits
        own = f"{gate.keys.of}killed"
        await seen.hset(streams, dict.fromkeys(ids, "killed ann"))
        await seen.hset(clients, {"ann": len(ids)})
        await seen.sadd(own, ["", *ids])
        await seen.pexpire(own, 3000)  # it has been dead for as long as its lease
        await seen.zadd(processes, {"killed": 1000 * time.time()})
        with trio.fail_after(30):
            await until_async(lambda: counted(gate, seen), {})


async def counted(gate: SharedGate, client: coredis.Redis[bytes]) -> dict[bytes, bytes]:
    """Return what each client has, if that is as much as lives in all."""
    _, streams, clients, _ = gate.keys.permits
    found = await client.hgetall(clients)
    assert isinstance(found, dict)
    lives = await client.hlen(streams)
    return found if sum(map(int, found.values())) == lives else {b"sum": b"wrong"}

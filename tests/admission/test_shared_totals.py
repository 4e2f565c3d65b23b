"""What keys spend, in Valkey for all hosts: counted once, whatever the link does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import coredis
import pytest
import trio

from tests.admission.gates import GateMaker, connected, until
from tests.admission.valkey import Server
from trio_ai_stream.admission.shared.shared_gate import Policy
from trio_ai_stream.admission.shared.valkey_scripts import LuaScript
from trio_ai_stream.billing.shared_totals import PUSH, SharedTotals
from trio_ai_stream.billing.spending import Spent
from trio_ai_stream.telemetry.metrics import Metrics

Ask = Callable[..., Awaitable[Any]]
FIVE, SEVEN = Spent(5, 5), Spent(7, 7)


@asynccontextmanager
async def pushing(
    server: Server, make: GateMaker, policy: Policy = "local"
) -> AsyncIterator[tuple[SharedTotals, coredis.Redis[bytes]]]:
    """Run the totals of one process for a block."""
    metrics = Metrics(version="1", upstream="simulator")
    async with (
        connected(server, make) as (gate, client),
        trio.open_nursery() as nursery,
    ):
        totals = SharedTotals(gate, metrics, policy)
        await nursery.start(totals.run)
        yield totals, client
        nursery.cancel_scope.cancel(reason="the test is over")


async def until_spent(totals: SharedTotals, name: str, day: int) -> None:
    """Ask until all of it has arrived."""
    with trio.fail_after(10):
        while (await totals.ask(name)) != Spent(day, day):
            pass


async def test_every_process_sees_what_all_have_spent(
    any_server: Server, make_gate: GateMaker
) -> None:
    """To the billionth; a name that nobody has used has spent nothing."""
    with trio.fail_after(20):
        async with (
            pushing(any_server, make_gate) as (first, _),
            pushing(any_server, make_gate) as (second, _),
        ):
            for _ in range(100):
                first.add("a", 3)
                second.add("a", 4)
            await until_spent(first, "a", 700)
            await until_spent(second, "a", 700)
            assert await first.ask("nobody") == Spent()


async def test_what_is_left_is_handed_over_at_shutdown(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Before the link is closed."""
    with trio.fail_after(20):
        async with pushing(valkey, make_gate) as (first, _):
            first.add("a", 5)
            await first.leave()
            first.add("a", 6)
            await first.leave()
        async with pushing(valkey, make_gate) as (second, _):
            assert await second.ask("a") == Spent(11, 11)


async def test_a_batch_that_came_twice_counts_once(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Its number says that it was there."""
    async with connected(valkey, make_gate) as (gate, client):
        keys = [f"{{{gate.keys.prefix}}}:{n}" for n in ("day", "month", "pushed")]
        for number in (1, 1, 2, 1):
            await gate.link.send(PUSH, keys, [number, "a", 7])
        assert await client.hget(keys[0], "a") == b"14"


@pytest.mark.parametrize("late", ["push", "spent"])
async def test_answers_in_another_order_count_nothing_twice(
    late: str, valkey: Server, make_gate: GateMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor not at all: the sums say which batch they hold."""
    asked, through = trio.Event(), trio.Event()

    async def held(ask: Ask, script: LuaScript, *arguments: Any) -> Any:
        answer = await ask(script, *arguments)
        if script.name == late and not asked.is_set():
            asked.set()  # it is there, and nobody has looked at it
            await through.wait()
        return answer

    with trio.fail_after(10):
        async with connected(valkey, make_gate) as (gate, _):
            link = gate.link
            monkeypatch.setattr(link, "call", partial(held, link.call))
            monkeypatch.setattr(link, "send", partial(held, link.send))
            metrics = Metrics(version="1", upstream="simulator")
            totals = SharedTotals(gate, metrics, "local")
            totals.add("a", 5)
            totals.add("b", 7)
            first, second = totals.leave, partial(totals.refresh, ["a"])
            if late == "spent":
                first, second = second, first
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                await asked.wait()
                await second()
                assert (totals.known("a"), totals.known("b")) == (FIVE, SEVEN)
                through.set()
            assert (totals.known("a"), totals.known("b")) == (FIVE, SEVEN)


@pytest.mark.parametrize(
    ("policy", "answer"), [("local", Spent(9, 9)), ("open", Spent()), ("closed", None)]
)
async def test_without_valkey_the_policy_decides(
    policy: Policy, answer: Spent | None, own_valkey: Server, make_gate: GateMaker
) -> None:
    """And what was not pushed is pushed once it is back."""
    with trio.fail_after(30):
        async with pushing(own_valkey, make_gate, policy) as (totals, _):
            totals.add("a", 4)
            await totals.leave()  # it has been pushed
            own_valkey.stop()
            totals.add("a", 5)
            asked = await totals.ask("a")
            assert asked == answer
            own_valkey.start()  # and it has forgotten everything
            link = totals._link
            await until(lambda: link.up)
            await until_spent(totals, "a", 5)

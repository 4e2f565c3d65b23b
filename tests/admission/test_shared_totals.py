"""What keys spend, in Valkey for all hosts: counted once, whatever the link does."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import coredis
import msgspec
import pytest
import trio

from tests.admission.gates import GateMaker, connected, until
from tests.admission.valkey import Server
from tests.billing.test_usage_ledger import DAY_S, ledger, row
from tests.billing.test_usage_report import ask as ask_usage
from tests.support.world import world
from trio_ai_stream.admission.gate import Policy
from trio_ai_stream.admission.shared.valkey_scripts import LuaScript
from trio_ai_stream.billing import shared_totals
from trio_ai_stream.billing.shared_totals import (
    LEAVE_S,
    MAX_CELLS,
    PUSH,
    SharedTotals,
    SharedUsage,
    usage_key,
)
from trio_ai_stream.billing.spending import Spent, day_of, today
from trio_ai_stream.billing.usage_report import UsageQuery, UsageQueryError
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.wire.record import Basis, Bill, Outcome

Ask = Callable[..., Awaitable[Any]]
FIVE, SEVEN = Spent(5, 5), Spent(7, 7)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take longer than a server at its end may."""
    monkeypatch.setattr(shared_totals, "LEAVE_S", 15.0)


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
        totals = SharedTotals(gate, metrics, policy, retention_s=90 * DAY_S)
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
                first.add("a", 3, today())
                second.add("a", 4, today())
            await until_spent(first, "a", 700)
            await until_spent(second, "a", 700)
            assert await first.ask("nobody") == Spent()


async def test_what_is_left_is_handed_over_at_shutdown(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Before the link is closed."""
    with trio.fail_after(20):
        async with pushing(valkey, make_gate) as (first, _):
            first.add("a", 5, today())
            await first.leave()
            first.add("a", 6, today())
            await first.leave()
        async with pushing(valkey, make_gate) as (second, _):
            assert await second.ask("a") == Spent(11, 11)


async def test_a_link_that_is_back_in_time_takes_what_is_left(
    own_valkey: Server, make_gate: GateMaker
) -> None:
    """A process that stopped meanwhile gave up at once."""
    with trio.fail_after(20):
        async with pushing(own_valkey, make_gate) as (first, _):
            own_valkey.stop()
            await until(lambda: not first._link.up)
            first.add("a", 5, today())
            own_valkey.start()
            await first.leave()
        async with pushing(own_valkey, make_gate) as (second, _):
            assert await second.ask("a") == Spent(5, 5)


def test_what_is_lost_is_said_before_the_server_ends() -> None:
    """It was cut off while it still waited, and said nothing."""
    assert Limits().app_shutdown_s > LEAVE_S


async def test_a_batch_that_came_twice_counts_once(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Its number says that it was there."""
    async with connected(valkey, make_gate) as (gate, client):
        names = ("day", "month", "pushed", "usage")
        keys = [f"{{{gate.keys.prefix}}}:{name}" for name in names]
        for number in (1, 1, 2, 1):
            arguments = [number, 60_000, 1, "others", 1, "a", 7, "cell", "own", "1 2"]
            more = ["more", "own", "9007199254740000 0", "rest", "own 2", "1 0"]
            await gate.link.send(PUSH, keys, [*arguments, *more])
        assert await client.hget(keys[0], "a") == b"14"
        own = b"18014398509480000 0"
        cells = {b"cell": b"2 4", b"own": own, b"others": b"2 0"}
        assert await client.hgetall(keys[3]) == cells
        assert 0 < await client.pttl(keys[3]) <= 60_000


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
            totals = SharedTotals(gate, metrics, "local", retention_s=DAY_S)
            totals.add("a", 5, today())
            totals.add("b", 7, today())
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
    ("policy", "answer"),
    [("local", Spent(14, 14)), ("open", Spent()), ("closed", None)],
)
async def test_without_valkey_the_policy_decides(
    policy: Policy, answer: Spent | None, own_valkey: Server, make_gate: GateMaker
) -> None:
    """And what was not pushed is pushed once it is back.

    What a process spends meanwhile, the other one may as well.
    """
    with trio.fail_after(30):
        async with (
            pushing(own_valkey, make_gate, policy) as (totals, _),
            connected(own_valkey, make_gate),
        ):
            leases = totals._leases
            await until(lambda: leases.processes == 2)
            totals.add("a", 4, today())
            await totals.leave()  # it has been pushed
            own_valkey.stop()
            totals.add("a", 5, today())
            asked = await totals.ask("a")
            assert asked == answer
            await totals.refresh(["a"])  # of which nothing comes, and nothing is said
            assert totals.known("a") == Spent(9, 9)
            own_valkey.start()  # and it has forgotten everything
            link = totals._link
            await until(lambda: link.up)
            await until_spent(totals, "a", 5)


async def test_any_host_sums_up_what_all_have_counted(
    any_server: Server, make_gate: GateMaker
) -> None:
    """By cell and by day; a bill that was settled moves its stream to another cell."""
    today = day_of(time.time())
    with trio.fail_after(20):
        async with (
            pushing(any_server, make_gate) as (first, _),
            pushing(any_server, make_gate) as (second, _),
            connected(any_server, make_gate) as (gate, _),
        ):
            left = row(Basis.ESTIMATED, outcome=Outcome.CLIENT_DISCONNECTED)
            for one in (row(), row(), left, row(ended_at=time.time() - 3 * DAY_S)):
                first.count(one, 1)
            second.count(row(), 1)
            settled = left.settled(Bill(Basis.RECONCILED, 1, 410, 0, 0, 0.5, "Groq", 9))
            await first.leave()
            first.count(left, -1)
            first.count(settled, 1)
            await first.leave()
            await second.leave()
            usage = SharedUsage(gate, retention_s=90 * DAY_S)

            async def ask(**said: str) -> list[dict[str, Any]]:
                return await usage.sums(UsageQuery.parse(said))

            (groq, simulator) = await ask(by="provider", since=today)
            assert (groq["provider"], groq["streams"]) == ("Groq", 1)
            assert (groq["reconciled"], groq["tokens_after_close"]) == (1, 9)
            assert (groq["ended_early"], groq["estimated"]) == (1, 0)
            assert (simulator["streams"], simulator["completion_tokens"]) == (3, 30)
            assert simulator["cost_usd"] == pytest.approx(3 * 0.000_153)
            days = await ask(by="day", outcome="completed")
            assert [one["streams"] for one in days] == [3, 1]
            assert await ask(by="day", key="nobody") == []
            assert len(await ask(by="day", until=today)) == 1
            with pytest.raises(UsageQueryError, match="ask each with hosts=own"):
                await ask(by="user")


async def test_a_name_too_many_is_with_all_others(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Whoever makes up models cannot fill Valkey: neither at once nor in time."""
    with trio.fail_after(20):
        async with (
            pushing(valkey, make_gate) as (totals, _),
            connected(valkey, make_gate) as (gate, client),
        ):
            for number in range(MAX_CELLS + 50):
                totals.count(row(model=f"m/{number}"), 1)
            await totals.leave()
            for number in range(50):
                totals.count(row(model=f"n/{number}"), 1)
                another = row(model=f"n/{number}")
                totals.count(msgspec.structs.replace(another, key="another"), 1)
            await totals.leave()
            key = usage_key(gate.keys.prefix, day_of(time.time()))
            assert await client.hlen(key) == MAX_CELLS + 2
            usage = SharedUsage(gate, retention_s=90 * DAY_S)
            for name, streams in (("somebody", 100), ("another", 50)):
                query = UsageQuery.parse({"model": "(others)", "key": name})
                (others,) = await usage.sums(query)
                assert others["streams"] == streams, "nobody hides another's sums"


async def test_the_route_speaks_for_all_hosts(
    own_valkey: Server, make_gate: GateMaker, tmp_path: Path
) -> None:
    """Where there are several; `hosts=own` is this one's ledger; 503 without Valkey."""
    env = {"ADMIN_KEYS": "admin-key"}
    with trio.fail_after(30):
        async with (
            pushing(own_valkey, make_gate) as (elsewhere, _),
            connected(own_valkey, make_gate) as (gate, _),
            world(env=env, ledger=ledger(tmp_path / "ledger.db"), bills=True) as w,
        ):
            elsewhere.count(row(), 1)
            await elsewhere.leave()
            billing = w.services.billing
            alone = await ask_usage(w, "hosts=all", "admin-key")
            assert alone.status == 404
            billing.shared_usage = SharedUsage(gate, retention_s=90 * DAY_S)
            everywhere = (await ask_usage(w, "by=key", "admin-key")).json()
            assert (everywhere["hosts"], everywhere["rows"][0]["key"]) == (
                "all",
                "somebody",
            )
            own = (await ask_usage(w, "by=key&hosts=own", "admin-key")).json()
            assert (own["hosts"], own["rows"]) == ("own", [])
            assert (await ask_usage(w, "hosts=some", "admin-key")).status == 400
            own_valkey.stop()
            lost = await ask_usage(w, "by=key", "admin-key")
            assert (lost.status, lost.json()["error_type"]) == (
                503,
                "ledger_unavailable",
            )


async def test_a_batch_of_yesterday_is_not_of_today(
    valkey: Server, make_gate: GateMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was spent before midnight and pushed after it: not lost, and not new."""
    with trio.fail_after(20):
        async with pushing(valkey, make_gate) as (totals, client):
            monkeypatch.setattr(shared_totals, "today", lambda: "2026-12-01")
            totals.add("a", 5, "2026-11-30")
            totals.add("a", 6, "2026-12-01")
            await totals.leave()
            assert totals.known("a") == await totals.ask("a") == Spent(6, 6)
            prefix = f"{{{totals._keys.prefix}}}:spent"
            assert await client.hget(f"{prefix}:2026-11-30", "a") == b"5"
            assert await client.hget(f"{prefix}:2026-11", "a") == b"5"


async def test_an_answer_that_came_after_midnight_is_not_of_today(
    valkey: Server, make_gate: GateMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks while the day ends is told what is spent on the new one."""
    days = ["2026-11-30"]

    async def over_midnight(ask: Ask, script: LuaScript, *arguments: Any) -> Any:
        answer = await ask(script, *arguments)
        days[0] = "2026-12-01"
        return answer

    with trio.fail_after(20):
        async with (
            pushing(valkey, make_gate) as (totals, _),
            pushing(valkey, make_gate) as (other, _),
        ):
            monkeypatch.setattr(shared_totals, "today", lambda: days[0])
            other.add("a", 5, "2026-11-30")
            other.add("a", 6, "2026-12-01")  # its clock is ahead
            await other.leave()
            call = partial(over_midnight, totals._link.call)
            monkeypatch.setattr(totals._link, "call", call)
            assert await totals.ask("a") == Spent(6, 6)


async def test_any_number_of_keys_may_have_a_budget(
    any_server: Server, make_gate: GateMaker
) -> None:
    """8000 in one question were too many for Lua, which took the link down."""
    names = [f"key-{number}" for number in range(9000)]
    with trio.fail_after(20):
        async with pushing(any_server, make_gate) as (totals, _):
            totals.add(names[-1], 5, today())
            await totals.leave()
            totals._seen.clear()
            await totals.refresh(names)
            assert totals.known(names[-1]) == FIVE


async def test_a_permit_is_held_until_others_see_what_its_stream_cost(
    own_valkey: Server, make_gate: GateMaker
) -> None:
    """Unless Valkey is lost: then nothing waits for it."""
    called: list[str] = []
    with trio.fail_after(20):
        async with connected(own_valkey, make_gate) as (gate, client):
            metrics = Metrics(version="1", upstream="simulator")
            totals = SharedTotals(gate, metrics, "local", retention_s=DAY_S)
            totals.when_counted(lambda: called.append("nothing to count"))
            totals.add("a", 5, today())
            totals.when_counted(lambda: called.append("counted"))
            assert called == ["nothing to count"]
            await totals.leave()
            assert called == ["nothing to count", "counted"]
            key = totals._key("spent", day_of(time.time()))
            assert await client.hget(key, "a") == b"5"
            totals.add("a", 5, today())
            totals.when_counted(lambda: called.append("lost"))
            own_valkey.stop()
            await until(lambda: not gate.link.up)
            await totals.leave()
            totals.add("a", 5, today())
            totals.when_counted(lambda: called.append("nobody to ask"))
            assert called[2:] == ["lost", "nobody to ask"]

"""Budgets of named keys: who has spent theirs gets no stream."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.billing.test_named_keys import chat, keys_file
from tests.billing.test_usage_ledger import ledger, row, write
from tests.stream.test_registry import crowd
from tests.support.completions import over
from tests.support.world import Visit, world
from trio_ai_stream.billing import spending
from trio_ai_stream.billing.spending import (
    LedgerTotals,
    Spending,
    Spent,
    exhausted,
    today,
)
from trio_ai_stream.billing.usage_database import NANO, UsageDatabase
from trio_ai_stream.billing.usage_ledger import UsageLedger
from trio_ai_stream.settings.values import NamedKey, Secret
from trio_ai_stream.stream.registry import SLICE
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.record import Basis

TOKEN = 15e-6  # dollars, at the simulator
KEY = Secret("some-key")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A key that may spend what a hundred tokens cost, a day."""
    file = keys_file(tmp_path, usd_per_day=100 * TOKEN)
    return {"KEYS_FILE": file, "API_KEYS": "other-key", "REDIS_URL": "redis://unused"}


async def test_a_spent_budget_is_402_with_what_is_left_and_when_it_is_new(
    env: dict[str, str], autojump_clock: MockClock
) -> None:
    """Before the stream; other keys are not touched."""
    async with world(env=env) as w:
        for _ in range(3):
            visit = chat(w, "simulator/fast?chunks=40")
            await over(visit)
            assert visit.status == 200
        refused = chat(w, "simulator/fast?chunks=1")
        await over(refused)
        assert refused.status == 402
        assert w.permits.held == 0
        said = refused.json()
        assert said["error_type"] == "budget_exhausted"
        assert "0.00 USD left of its 0.00 USD a day; they are new at" in said["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 86_400
        other = chat(w, "simulator/fast?chunks=1", "other-key")
        await over(other)
        assert other.status == 200
        (day, _month) = await w.services.billing.spending.views("team")
        assert day["spent_usd"] == pytest.approx(3 * (3e-6 + 40 * TOKEN))
        assert day["left_usd"] == 0


async def test_a_cut_stream_counts_at_once(
    env: dict[str, str], autojump_clock: MockClock
) -> None:
    """By what whole answers of its model have cost; then by its own bill."""
    async with world(env=env, bills=True) as w:
        model = "simulator/fast?delay_ms=10&chunks=30&bill_more=50"
        await over(chat(w, model))
        spending = w.services.billing.spending
        visit = chat(w, model)
        await trio.sleep(0.2)
        visit.leave()
        await over(visit)
        after = (await spending.views("team"))[0]["spent_usd"]
        whole = 3e-6 + 30 * TOKEN
        assert after - whole == pytest.approx(21 * TOKEN, rel=0.4)
        await trio.sleep(3)
        bill = w.simulator.ledger.find()[-1].bill
        assert bill is not None
        settled = (await spending.views("team"))[0]["spent_usd"]
        assert settled == pytest.approx(whole + bill.cost)


async def cut_off(visit: Visit) -> dict[str, Any]:
    """Wait for the end; return the last event."""
    with trio.fail_after(100):
        await visit.over.wait()
    last: dict[str, Any] = visit.events[-1]
    return last


async def test_a_live_stream_ends_with_the_budget_if_its_key_says_so(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its client is told why; without `end_streams` it goes on."""
    file = keys_file(tmp_path, usd_per_day=100 * TOKEN, end_streams=True)
    env = {"KEYS_FILE": file, "REDIS_URL": "redis://unused"}
    async with world(env=env, bills=True) as w:
        model = "simulator/fast?delay_ms=20&chunks=2000"
        await over(chat(w, model, max_tokens=20))
        last = await cut_off(chat(w, model))
        assert (last["type"], last["error_type"]) == ("error", "budget_exhausted")
        sent = w.simulator.ledger.find()[-1].tokens_sent
        assert 40 <= sent <= 200
        w.assert_clean()


async def test_many_streams_that_end_with_a_budget_leave_others_their_turns(
    mock_clock: MockClock,
) -> None:
    """They are looked at, and ended, a slice at a time."""
    registry = crowd("name:team")
    key = NamedKey("team", KEY, usd_per_day=1, end_streams=True)
    totals = LedgerTotals(None)
    budgets = Spending(totals, {"team": key})
    totals.add("team", NANO, today())
    seen = [0]

    async def look() -> None:
        while seen[-1] < len(registry):
            seen.append(sum(one.ending is not None for one in registry))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(budgets.run, registry.__iter__)
        mock_clock.jump(spending.REFRESH_S)
        await look()
        nursery.cancel_scope.cancel(reason="the test is over")
    # Trio's order within one turn is random, so two slices may pass unseen, not three.
    assert max(b - a for a, b in pairwise(seen)) <= 2 * SLICE < len(registry)


@pytest.mark.parametrize("end_streams", [True, False])
async def test_a_budget_that_is_new_while_it_is_looked_at_ends_nothing(
    mock_clock: MockClock, end_streams: bool
) -> None:
    """As by a SIGHUP between two slices."""
    registry = crowd("name:team")
    totals = LedgerTotals(None)
    poor = NamedKey("team", KEY, usd_per_day=1, end_streams=True)
    budgets = Spending(totals, {"team": poor})
    totals.add("team", NANO, today())
    looked = trio.Event()

    def live() -> Iterator[Stream]:
        for number, stream in enumerate(registry):
            if number == SLICE:
                usd = 9 if end_streams else 1
                key = NamedKey("team", KEY, usd_per_day=usd, end_streams=end_streams)
                budgets.keys = {"team": key}
            yield stream
        looked.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(budgets.run, live)
        mock_clock.jump(spending.REFRESH_S)
        await looked.wait()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert not any(stream.ending for stream in registry)


def test_a_month_is_a_budget_of_its_own() -> None:
    """It ends with the month."""
    key = NamedKey("a", KEY, usd_per_day=9, usd_per_month=20)
    assert exhausted(key, Spent(8 * NANO, 19 * NANO)) is None
    problem = exhausted(key, Spent(NANO, 20 * NANO))
    assert problem is not None
    now = datetime.now(UTC)
    first = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    assert f"a month; they are new at {first:%Y-%m-%d}T00:00:00Z" in problem.message


async def test_the_ledger_knows_what_others_have_spent(tmp_path: Path) -> None:
    """Two workers of one host; what one spends the other sees when it reads."""
    path = tmp_path / "ledger.db"
    file = keys_file(tmp_path, usd_per_day=100 * TOKEN)
    env = {"KEYS_FILE": file, "LEDGER_FILE": str(path)}
    with trio.fail_after(30):
        async with (
            world(env=env, ledger=ledger(path), bills=True) as first,
            world(env=env, ledger=ledger(path), bills=True) as second,
        ):
            for _ in range(3):
                await over(chat(first, "simulator/fast?chunks=40"))
            status: int | None = 200
            while status == 200:
                visit = chat(second, "simulator/fast?chunks=0")
                await over(visit)
                status = visit.status
            assert status == 402


async def test_what_was_spent_under_a_wrong_clock_counts_on_its_own_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was ahead for a while, and was put right, takes no budget away."""
    monkeypatch.setattr(spending, "today", lambda: "2026-11-15")
    database = UsageDatabase(tmp_path / "ledger.db")
    noon = datetime(2026, 11, 15, 12, tzinfo=UTC)
    for ahead in (0, 1, 40):
        one = row(ended_at=(noon + timedelta(days=ahead)).timestamp())
        database.put(msgspec.json.encode(one) + b"\n")
    database.close()
    asked = ledger(tmp_path / "ledger.db")
    totals = LedgerTotals(asked)
    async with trio.open_nursery() as nursery:
        await nursery.start(asked.run, print)
        await totals.refresh(["somebody"])
        nursery.cancel_scope.cancel(reason="test")  # which closes the ledger
    assert totals.known("somebody") == Spent(153_000, 2 * 153_000)


async def test_what_is_spent_is_counted_once(tmp_path: Path) -> None:
    """Before it is in the ledger, while it is read, and after."""
    totals = LedgerTotals(ledger(tmp_path / "ledger.db"))
    totals.add("a", 5, today())
    totals.add("a", -2, today())
    assert totals.known("a") == Spent(3, 3)
    assert totals.known("b") == Spent()


@asynccontextmanager
async def busy(ledger: UsageLedger) -> AsyncIterator[trio.Nursery]:
    """Hold the ledger's one thread while the block runs; what it starts waits."""
    held, may_go_on = threading.Event(), threading.Event()

    def hold(_database: UsageDatabase) -> None:
        held.set()
        may_go_on.wait(10)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.ask, hold)
            await trio.to_thread.run_sync(held.wait)
            yield nursery
            may_go_on.set()


async def test_what_comes_while_the_ledger_is_read_is_counted_once(
    tmp_path: Path,
) -> None:
    """A row that is written while others are: it was put in after they were counted."""
    one = ledger(tmp_path / "ledger.db")
    totals, cost = LedgerTotals(one), 153_000

    def spend() -> None:
        one.put(row())
        totals.add("somebody", cost, today())

    spend()
    async with busy(one) as nursery:
        nursery.start_soon(totals.refresh, [])
        await wait_all_tasks_blocked()
        spend()
    assert totals.known("somebody") == Spent(2 * cost, 2 * cost)
    await write(one)  # which closes it


async def test_what_is_read_at_midnight_is_of_the_new_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question waited for the ledger's thread, and the day changed meanwhile."""
    one = ledger(tmp_path / "ledger.db")
    totals, now, cost = LedgerTotals(one), today(), 153_000
    one.put(row())
    totals.add("somebody", cost, now)
    async with busy(one) as nursery:
        monkeypatch.setattr(spending, "today", lambda: "2026-11-27")
        nursery.start_soon(totals.refresh, [])
        await wait_all_tasks_blocked()
        monkeypatch.setattr(spending, "today", lambda: now)
    assert totals.known("somebody") == Spent(cost, cost)
    await write(one)  # which closes it


def test_what_was_spent_before_midnight_is_not_of_the_new_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where no ledger is read."""
    totals = LedgerTotals(None)
    for day, expected in (
        ("2026-11-29", Spent(5, 5)),
        ("2026-11-30", Spent(5, 10)),
        ("2026-12-01", Spent(5, 5)),
    ):
        monkeypatch.setattr(spending, "today", lambda day=day: day)
        totals.add("team", 5, day)
        assert totals.known("team") == expected


def test_a_bill_that_comes_after_midnight_is_of_the_day_of_its_stream() -> None:
    """As in the ledger: today's budget pays for today's streams only."""
    totals = LedgerTotals(None)
    budgets = Spending(totals, {"somebody": NamedKey("somebody", KEY)})
    before = row(Basis.ESTIMATED, ended_at=time.time() - 40 * 86_400)
    budgets.stream_ended(before)
    budgets.settled(before, msgspec.structs.replace(before, cost_nusd=7 * NANO))
    assert totals.known("somebody") == Spent()


@pytest.mark.parametrize("budget", [None, 1.0])
async def test_what_a_key_has_spent_is_told_after_a_restart(
    budget: float | None, tmp_path: Path
) -> None:
    """Also of a key without a budget, and what other workers have seen of it."""
    with trio.fail_after(20):
        first, second = (ledger(tmp_path / "ledger.db") for _ in range(2))
        async with trio.open_nursery() as nursery:
            await nursery.start(first.run, print)
            await nursery.start(second.run, print)
            key = NamedKey("somebody", KEY, usd_per_day=budget)
            budgets = Spending(LedgerTotals(second), {"somebody": key})
            first.put(row())
            await first.flush()
            second.put(own := row())
            budgets.stream_ended(own)
            said: list[list[dict[str, Any]]] = []

            async def look() -> None:
                said.append(await budgets.views("somebody"))

            async with trio.open_nursery() as looks:
                looks.start_soon(look)
                looks.start_soon(look)
            await look()
            nursery.cancel_scope.cancel(reason="the test is over")
    for day, month in said:
        assert (day["key"], day["spent_usd"]) == ("somebody", pytest.approx(0.000_306))
        assert month["spent_usd"] == pytest.approx(0.000_306)


@pytest.mark.parametrize(
    ("now", "day", "month"),
    [
        ("2026-11-30T23:59:59", "2026-12-01", "2026-12-01"),
        ("2026-12-31T00:00:00", "2027-01-01", "2027-01-01"),
        ("2027-01-31T12:00:00", "2027-02-01", "2027-02-01"),
        ("2028-02-28T12:00:00", "2028-02-29", "2028-03-01"),
        ("2026-03-29T01:30:00", "2026-03-30", "2026-04-01"),  # Europe's clocks change
    ],
)
def test_budgets_are_new_at_midnight_utc(
    now: str, day: str, month: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the next day and the first of the next month, whatever their lengths."""

    class Fixed(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.fromisoformat(now).replace(tzinfo=tz)

    monkeypatch.setattr(spending, "datetime", Fixed)
    key = NamedKey("a", KEY, usd_per_day=1, usd_per_month=1)
    for spent, new in ((Spent(NANO, 0), day), (Spent(0, NANO), month)):
        problem = exhausted(key, spent)
        assert problem is not None
        assert problem.message.endswith(f"new at {new}T00:00:00Z")
        wait = datetime.fromisoformat(new) - datetime.fromisoformat(now)
        assert problem.retry_after == wait.total_seconds()

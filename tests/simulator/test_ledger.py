"""The ledger: bounded, truthful about what was not seen, waited for by events."""

from __future__ import annotations

import itertools

import pytest
import trio
import trio.testing

from trio_ai_stream.simulator.ledger import Ledger
from trio_ai_stream.simulator.schedule import ResponsePhase


@pytest.fixture
async def ledger() -> Ledger:
    """A small ledger whose host clock counts readings."""
    return Ledger(size=3, recent_sends=2, now_ns=itertools.count(1).__next__)


async def test_an_unobserved_time_is_absent(ledger: Ledger) -> None:
    """A record holds no time for what did not happen, neither zero nor null."""
    record = ledger.open("a")
    ledger.close(record, "finished")
    flat = record.to_dict()
    assert "first_token_ns" not in flat
    assert "client_gone" not in record.marks
    assert record.events_after_gone is None
    assert flat["ended_ns"] > flat["head_received_ns"]
    assert (flat["outcome"], flat["phase"], flat["finished"]) == (
        "finished",
        "ended",
        True,
    )


async def test_the_first_notice_counts(ledger: Ledger) -> None:
    """How and when the client left is what was noticed first."""
    record = ledger.open("a")
    ledger.mark(record, "first_token", ResponsePhase.STREAMING)
    ledger.sent(record, 100, 2, 2)
    ledger.gone(record, "fin")
    first = record.marks["client_gone"]
    ledger.sent(record, 100, 3, 3)
    ledger.gone(record, "rst")
    ledger.close(record, "fault")
    assert (record.gone_how, record.marks["client_gone"]) == ("fin", first)
    assert record.gone_phase is ResponsePhase.STREAMING
    assert (record.events_at_gone, record.events_after_gone) == (2, 3)
    assert record.outcome == "client_gone"


async def test_a_fin_with_a_failed_write_was_a_reset(ledger: Ledger) -> None:
    """A write that failed proves that what the reader took for a FIN was an RST."""
    record = ledger.open("a")
    ledger.gone(record, "fin")
    first = record.marks["client_gone"]
    ledger.gone(record, "write_error")
    assert (record.gone_how, record.marks["client_gone"]) == ("rst", first)


async def test_leaving_after_the_end_is_not_leaving(ledger: Ledger) -> None:
    """A client that goes after its response has ended is not recorded as gone."""
    record = ledger.open("a")
    ledger.close(record, "finished")
    ledger.gone(record, "fin")
    ledger.close(record, "cancelled")
    assert "client_gone" not in record.marks
    assert record.outcome == "finished"
    assert ledger.outcomes == {"finished": 1}


async def test_leaving_with_the_last_byte_is_not_leaving(ledger: Ledger) -> None:
    """A departure seen before the last write returned is taken back: all was sent."""
    record = ledger.open("a")
    ledger.gone(record, "fin")
    ledger.close(record, "finished")
    assert record.outcome == "finished"
    assert "client_gone" not in record.marks
    assert (record.gone_how, record.gone_phase) == (None, None)


async def test_memory_is_bounded(ledger: Ledger) -> None:
    """The ledger forgets the oldest ended records and attempts, never live ones."""
    live = ledger.open("live")
    for number in range(10):
        ledger.close(ledger.open(f"r{number}"), "finished")
        ledger.attempt(f"r{number}")
    known = [record.request_id for record in ledger.find()]
    assert known == ["live", "r7", "r8", "r9"]
    assert ledger.total == 11
    assert ledger.attempt("r9") == 2
    assert ledger.attempt("r0") == 1
    assert ledger.find(request_id="live") == [live]
    assert ledger.find(since=10)[0].request_id == "r9"


async def test_recent_sends_are_the_last_ones(ledger: Ledger) -> None:
    """`recent` holds the last sends with the events sent by then, oldest first."""
    record = ledger.open("a")
    assert record.recent == []
    for _ in range(3):
        ledger.sent(record, 10, 5, 5)
    assert [events for _, events in record.recent] == [10, 15]
    assert record.recent[0][0] < record.recent[1][0]
    none = Ledger(recent_sends=0)
    silent = none.open("b")
    none.sent(silent, 1, 1, 1)
    assert silent.recent == []


async def test_wait_for_what_has_happened(ledger: Ledger) -> None:
    """Waiting for something that has happened returns the newest such record."""
    ledger.close(ledger.open("a"), "finished")
    newest = ledger.open("a")
    ledger.close(newest, "finished")
    ledger.open("a")
    assert await ledger.wait_for("a", "ended") is newest


async def test_wait_until_wakes_on_the_change(
    ledger: Ledger, autojump_clock: trio.testing.MockClock
) -> None:
    """A waiter wakes at the change that satisfies it, and takes no time to do so."""
    async with trio.open_nursery() as nursery:

        async def work() -> None:
            record = ledger.open("a")
            for _ in range(5):
                await trio.sleep(1)
                ledger.sent(record, 1, 1, 1)
            ledger.close(record, "finished")

        nursery.start_soon(work)
        record = await ledger.wait_until("a", lambda known: known.events_sent == 3)
        assert trio.current_time() == 3
        assert (await ledger.wait_for(None, "ended")) is record
        assert trio.current_time() == 5


async def test_other_requests_do_not_wake(
    ledger: Ledger, autojump_clock: trio.testing.MockClock
) -> None:
    """A waiter is not woken by another request id; cancelled it leaves nothing."""
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.wait_for, "a", "ended")
            await trio.testing.wait_all_tasks_blocked()
            ledger.close(ledger.open("b"), "finished")
    assert scope.cancelled_caught
    assert not ledger._waiters


async def test_reset_keeps_live_records(ledger: Ledger) -> None:
    """A reset forgets what has ended and keeps what lives; numbers go on."""
    ledger.close(ledger.open("a"), "finished")
    live = ledger.open("b")
    ledger.reset()
    stats = ledger.to_dict(ledger.find())
    assert [entry["number"] for entry in stats["requests"]] == [live.number] == [2]
    assert (stats["live"], stats["outcomes"]) == (1, {})
    assert "b" in repr(live)

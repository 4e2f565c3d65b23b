"""What cut streams were billed is looked up afterwards; on a mock clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.billing.test_usage_ledger import ledger, row, write
from tests.support.logs import logged
from tests.support.world import World, world
from tests.telemetry.test_metrics import values
from trio_ai_stream.billing.reconciler import Reconciler, tokens_after_close
from trio_ai_stream.wire.record import Basis, Bill

SLOW = "delay_ms=20&endless=1"


async def cut(w: World, model: str, after_s: float = 1.0) -> None:
    """Begin a stream and leave it."""
    visit = w.chat(model)
    await trio.sleep(after_s)
    visit.leave()
    await visit.over.wait()


def billed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of settled bills."""
    return [one for one in records if one["event"] == "stream_billed"]


async def test_a_cut_stream_is_billed_as_upstream_says(
    autojump_clock: MockClock,
) -> None:
    """A second after its end, in one record, to the token and the cent."""
    with logged() as records:
        async with world(bills=True) as w:
            await cut(w, f"simulator/fast?{SLOW}&reasoning=5")
            began = trio.current_time()
            await trio.sleep(5)
            (seen,) = w.simulator.ledger.find()
            assert seen.bill is not None
            (told,) = billed(records)
            assert told["usage"] == "reconciled"
            assert told["request_id"] == w.record.request_id
            assert told["completion_tokens"] == seen.bill.completion_tokens
            assert told["reasoning_tokens"] == 5
            assert told["cost_usd"] == pytest.approx(seen.bill.cost)
            assert told["tokens_after_close"] == 0
            assert told["lag_ms"] == pytest.approx(1000, abs=20)
            assert trio.current_time() - began == 5
            w.assert_clean()


async def test_a_provider_that_goes_on_is_found_out(autojump_clock: MockClock) -> None:
    """What was billed beyond what had been relayed is counted, under its name."""
    with logged() as records:
        async with world(bills=True) as w:
            await cut(w, f"simulator/fast?{SLOW}&bill_more=400&provider=Groq")
            await trio.sleep(5)
            (told,) = billed(records)
            assert told["tokens_after_close"] == pytest.approx(400, abs=25)
            assert told["provider"] == "Groq"
            text = w.services.metrics.render()[1].decode()
            line = 'wasted_tokens_total{provider="Groq"} '
            assert float(text.split(line)[1].split()[0]) > 300


async def test_a_late_bill_is_asked_for_with_growing_pauses(
    autojump_clock: MockClock,
) -> None:
    """After 1, 3, 7, 15, 31 … seconds, until it is there."""
    with logged() as records:
        async with world(bills=True) as w:
            await cut(w, f"simulator/fast?{SLOW}&bill_ms=20000")
            await trio.sleep(60)
            (told,) = billed(records)
            assert (told["usage"], told["lookups"]) == ("reconciled", 5)
            assert told["lag_ms"] == pytest.approx(31_000, abs=500)


@pytest.mark.parametrize("bill", ["never", "wrong", "odd"])
async def test_a_bill_that_never_comes_stays_an_estimate(
    bill: str, autojump_clock: MockClock
) -> None:
    """After five minutes, priced by upstream's list; another's bill is not taken."""
    with logged() as records:
        async with world(bills=True) as w:
            await cut(w, f"simulator/default?{SLOW}&bill={bill}")
            await trio.sleep(299)
            assert billed(records) == []
            assert len(w.services.billing.reconciler) == 1
            await trio.sleep(10)
            (told,) = billed(records)
            assert told["usage"] == "estimated"
            assert told["lag_ms"] == pytest.approx(300_000, abs=500)
            assert told["tokens_after_close"] is None
            cost = 3e-6 * told["prompt_tokens"] + 15e-6 * told["completion_tokens"]
            assert told["cost_usd"] == round(cost, 9)  # no further


async def test_a_stream_without_a_name_is_priced_at_once(
    autojump_clock: MockClock,
) -> None:
    """Who leaves before upstream has answered leaves nothing to look up."""
    with logged() as records:
        async with world(bills=True) as w:
            await cut(w, "simulator/no-answer")
            await trio.sleep(0.1)
            (told,) = billed(records)
            assert (told["usage"], told["completion_tokens"]) == ("estimated", 0)
            assert told["lookups"] == 0


async def test_few_are_asked_for_at_a_time(autojump_clock: MockClock) -> None:
    """A crowd that leaves does not become a crowd of look-ups."""
    most = 0
    async with world(bills=True, permits=60) as w:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(cut, w, f"simulator/fast?{SLOW}")
        await trio.testing.wait_all_tasks_blocked()
        assert len(w.services.billing.reconciler) == 50
        while len(w.services.billing.reconciler):
            most = max(most, w.transport.statistics().live)
            await trio.sleep(0.001)
        assert most <= 4


async def test_a_bill_that_a_dead_worker_left_counts_as_open(tmp_path: Path) -> None:
    """From the start, and not from the next stream that is cut."""
    path = tmp_path / "ledger.db"
    await write(ledger(path), row(Basis.ESTIMATED))
    async with world(ledger=ledger(path)) as w:
        upstream = w.services.upstream
        assert upstream is not None
        await w.nursery.start(w.services.billing.run, upstream.get, list)
        assert values(w.services.metrics)["bills_open",] == 1


async def test_a_bill_too_many_stays_an_estimate() -> None:
    """The queue is bounded; what does not fit is not looked up."""
    reconciler = Reconciler(lambda *_: None, for_s=300, limit=2)
    one = row(Basis.ESTIMATED)
    assert [reconciler.put(one) for _ in range(3)] == [True, True, False]
    assert len(reconciler) == 2


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [{"id": "\xff"}]}',
        b'{"data": [{"id": "x", "pricing": {"prompt": 1%b}}]}' % (400 * b"0"),
    ],
    ids=["not UTF-8", "a number too long"],
)
async def test_answers_that_cannot_be_read_leave_an_estimate(
    body: bytes, autojump_clock: MockClock
) -> None:
    """Of a generation and of the prices: the bill is settled all the same."""

    async def get(_path: str) -> bytes:
        await trio.sleep(0.1)
        return body

    settled: list[Basis] = []
    reconciler = Reconciler(lambda _row, new, *_: settled.append(new.usage), for_s=10)
    reconciler.put(row(Basis.ESTIMATED))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reconciler.run, get)
        await trio.sleep(20)
        assert settled == [Basis.ESTIMATED]
        nursery.cancel_scope.cancel(reason="settled")


def test_only_what_exceeds_the_error_is_called_waste() -> None:
    """Reasoning that was hidden all along came before the close."""
    relayed = Bill(Basis.ESTIMATED, 1, 100, 0)
    assert tokens_after_close(relayed, Bill(Basis.RECONCILED, 1, 120)) == 0
    assert tokens_after_close(relayed, Bill(Basis.RECONCILED, 1, 130)) == 30
    assert tokens_after_close(relayed, Bill(Basis.RECONCILED, 1, 400, 290)) == 0
    nothing = Bill(Basis.ESTIMATED, 1, 0, 0)
    assert tokens_after_close(nothing, Bill(Basis.RECONCILED, 1, 90, 90)) == 90

"""Each ending of a stream: its outcome, its terminal event, what is left behind.

Real application, transport and simulator over memory streams, on a mock clock: the
times that are asserted are exact.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.scripted import LAST_CHUNK, chunked, head, scripted
from tests.support.world import BUDGETS, Visit, World, world
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.record import Outcome, Record


async def end(visit: Visit) -> float:
    """Wait for the request's end; return the time."""
    with trio.fail_after(1000):
        await visit.over.wait()
    return trio.current_time()


async def test_a_complete_answer_is_done_and_its_connection_reused(
    autojump_clock: MockClock,
) -> None:
    """`done` comes once and last, and upstream's connection goes back to the pool."""
    async with world() as w:
        for _ in range(3):
            visit = w.chat(max_tokens=6)
            await end(visit)
            assert visit.types == ["connected", *["content"] * 6, "done"]
            assert visit.events[-1]["finish_reason"] == "length"
            assert visit.events[-1]["usage"]["completion_tokens"] == 6
            assert visit.ended.is_set()
        assert [r.outcome for r in w.records] == [Outcome.COMPLETED] * 3
        assert w.transport.statistics().connects == 1
        w.assert_clean()


async def test_connected_leaves_before_upstream_answers(
    autojump_clock: MockClock,
) -> None:
    """The first event does not wait for upstream's headers."""
    async with world() as w:
        visit = w.chat("simulator/no-answer")
        await wait_all_tasks_blocked()
        assert visit.types == ["connected"]
        assert visit.arrived[0][0] == trio.current_time()
        visit.leave()


TIMED: list[tuple[str, float, Outcome, str]] = [
    ("simulator/no-answer", 20, Outcome.FIRST_TOKEN_TIMEOUT, "first_token_timeout"),
    ("simulator/no-token", 20, Outcome.FIRST_TOKEN_TIMEOUT, "first_token_timeout"),
    ("simulator/comments-only", 20, Outcome.FIRST_TOKEN_TIMEOUT, "first_token_timeout"),
    ("simulator/silent", 10.05, Outcome.STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
    ("simulator/mumbling", 100, Outcome.DEADLINE_EXCEEDED, "deadline_exceeded"),
    ("simulator/endless", 100, Outcome.DEADLINE_EXCEEDED, "deadline_exceeded"),
]


@pytest.mark.parametrize(("model", "after", "outcome", "error_type"), TIMED)
async def test_each_budget_ends_its_stream_at_its_time(
    autojump_clock: MockClock,
    model: str,
    after: float,
    outcome: Outcome,
    error_type: str,
) -> None:
    """A budget fires at its exact time, closes upstream and tells the client."""
    async with world() as w:
        began = trio.current_time()
        visit = w.chat(model)
        ended = await end(visit)
        assert ended - began == pytest.approx(after, abs=0.011)
        assert visit.types[-1] == "error"
        assert visit.types.count("error") == 1
        assert visit.events[-1]["error_type"] == error_type
        assert visit.ended.is_set()
        assert w.record.outcome is outcome
        assert w.record.told
        assert w.record.cancel_latency_s in (0, None)
        w.assert_clean()


@pytest.mark.parametrize("model", ["no-answer", "no-token", "endless"])
async def test_upstream_is_closed_in_the_step_that_finds_the_client_gone(
    model: str, autojump_clock: MockClock
) -> None:
    """Whether it has answered or not: nothing has to be woken first."""
    async with world() as w:
        visit = w.chat(f"simulator/{model}")
        await trio.sleep(1)
        assert w.transport.statistics().live == 1
        visit.leave()
        assert w.transport.statistics().live == 0
        await visit.over.wait()
        assert w.record.outcome is Outcome.CLIENT_DISCONNECTED
        assert w.record.cancel_latency_s == 0
        w.assert_clean()


async def test_a_record_that_nobody_can_keep_costs_no_connection(
    autojump_clock: MockClock,
) -> None:
    """Our own bug behind a whole answer: nothing is left open, the answer is whole."""

    def fail(_record: Record) -> None:
        raise LookupError("test")

    async with world() as w:
        w.services.observe = fail
        body = b'{"prompt": "hello", "model": "simulator/fast?done_ms=500"}'
        visit = Visit(w.app, "/chat", body)
        await visit.task()
        assert visit.types[-1] == "done"
        w.assert_clean()


async def test_no_connection_in_time_is_unreachable(autojump_clock: MockClock) -> None:
    """Connecting has a budget of its own, tried again within the first-token budget."""
    async with world() as w:
        w.reachable = False
        visit = w.chat()
        await end(visit)
        assert visit.types == ["connected", "error"]
        assert visit.events[-1]["error_type"] == "upstream_unreachable"
        assert visit.events[-1]["retryable"] is True
        assert w.record.outcome is Outcome.UPSTREAM_UNREACHABLE
        assert w.record.attempts == 3
        w.assert_clean()


FAULTS: list[tuple[str, Outcome, str, int]] = [
    ("simulator/drop", Outcome.UPSTREAM_FAILED, "upstream_failed", 502),
    ("simulator/truncated", Outcome.UPSTREAM_FAILED, "upstream_failed", 502),
    (
        "simulator/default?status=402",
        Outcome.UPSTREAM_REJECTED,
        "upstream_payment_required",
        502,
    ),
    ("simulator/default?status=404", Outcome.UPSTREAM_REJECTED, "not_found", 404),
    ("simulator/default?status=500", Outcome.UPSTREAM_REJECTED, "upstream_error", 502),
]


@pytest.mark.parametrize(("model", "outcome", "error_type", "code"), FAULTS)
async def test_upstreams_faults_are_errors_never_done(
    autojump_clock: MockClock, model: str, outcome: Outcome, error_type: str, code: int
) -> None:
    """What upstream breaks or refuses ends in one error of its own type."""
    async with world() as w:
        visit = w.chat(model)
        await end(visit)
        assert "done" not in visit.types
        assert visit.events[-1]["error_type"] == error_type
        assert visit.events[-1]["code"] == code
        assert w.record.outcome is outcome
        w.assert_clean()


async def leave(_w: World, visit: Visit) -> None:
    visit.leave()


async def stall(_w: World, visit: Visit) -> None:
    visit.leave(stalled=True)


async def cut_off(_w: World, visit: Visit) -> None:
    visit.leave(drained=True)


async def cancel_by_id(w: World, _visit: Visit) -> None:
    (stream,) = w.services.registry
    assert stream.stop(Outcome.CANCELLED)


async def drain(w: World, _visit: Visit) -> None:
    w.services.registry.begin_drain()
    w.services.registry.end_streams()


CAUSES: list[tuple[Any, Outcome, str | None]] = [
    (leave, Outcome.CLIENT_DISCONNECTED, None),
    (stall, Outcome.CLIENT_STALLED, None),
    (cut_off, Outcome.SHUTDOWN, None),
    (cancel_by_id, Outcome.CANCELLED, "cancelled"),
    (drain, Outcome.SHUTDOWN, "shutting_down"),
]
PHASES = ["simulator/no-answer", "simulator/no-token", "simulator/silent"]


@pytest.mark.parametrize("model", PHASES)
@pytest.mark.parametrize(("cause", "outcome", "error_type"), CAUSES)
async def test_a_cause_from_outside_closes_upstream_at_once(
    autojump_clock: MockClock,
    model: str,
    cause: Any,
    outcome: Outcome,
    error_type: str | None,
) -> None:
    """Whoever ends a stream, in whatever phase: upstream closes in no time at all."""
    async with world() as w:
        visit = w.chat(model)
        await trio.sleep(1)
        began = trio.current_time()
        await cause(w, visit)
        assert await end(visit) == began
        await wait_all_tasks_blocked()
        (entry,) = w.simulator.ledger.find()
        assert "client_gone" in entry.marks
        assert w.record.outcome is outcome
        told = [e["error_type"] for e in visit.events if e["type"] == "error"]
        assert told == ([error_type] if error_type else [])
        assert w.record.told is bool(error_type)
        w.assert_clean()


async def test_the_first_cause_wins(autojump_clock: MockClock) -> None:
    """A stream that was cancelled by id stays so when its client leaves after it."""
    async with world() as w:
        visit = w.chat("simulator/silent")
        await trio.sleep(1)
        await cancel_by_id(w, visit)
        visit.leave()
        await end(visit)
        assert w.record.outcome is Outcome.CANCELLED
        w.assert_clean()


async def test_the_deadline_makes_no_failure_of_a_whole_answer(
    autojump_clock: MockClock,
) -> None:
    """All of it has come in time; its client only reads slowly."""
    said = b'{"choices":[{"delta":{"content":"all"},"finish_reason":"stop"}]}'
    events = chunked(b"data: %b\n\ndata: [DONE]\n\n" % said)
    async with scripted(head(), 1.0, events + LAST_CHUNK) as (w, _):
        visit = w.chat()
        await trio.sleep(0.5)
        visit.reading = trio.Event()
        await trio.sleep(BUDGETS.deadline_s + 1)
        visit.reading.set()
        await end(visit)
        assert visit.types == ["connected", "content", "done"]
        assert w.record.outcome is Outcome.COMPLETED
        w.assert_clean()


async def test_a_blocked_write_does_not_delay_the_close_of_upstream(
    autojump_clock: MockClock,
) -> None:
    """Cancelled while the client does not read: upstream is closed in the same step."""
    async with world() as w:
        visit = w.chat("simulator/flood")
        visit.reading = trio.Event()
        await trio.sleep(1)
        (stream,) = w.services.registry
        stream.stop(Outcome.CANCELLED)
        assert w.transport.statistics().live == 0
        visit.reading.set()
        await end(visit)
        assert visit.types[-1] == "error"
        assert w.record.outcome is Outcome.CANCELLED
        w.assert_clean()


@pytest.mark.parametrize("stalled", [False, True])
async def test_a_drain_that_begins_after_the_client_has_left_is_not_the_cause(
    stalled: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Not even if the stream is made in between, by a grant that was on its way."""
    async with world() as w:
        registry, gate = w.services.registry, w.services.gate

        async def acquire(*arguments: Any) -> Any:
            with trio.CancelScope(shield=True):  # a grant that comes with the cancel
                await trio.sleep(1)
            return await granted(*arguments)

        def enter(stream: Stream) -> None:
            entered(stream)
            registry.begin_drain()

        granted, entered = gate.acquire_stream, registry.add
        monkeypatch.setattr(gate, "acquire_stream", acquire)
        monkeypatch.setattr(registry, "add", enter)
        visit = w.chat()
        await trio.sleep(0.5)
        visit.leave(stalled=stalled)
        await end(visit)
        expected = "client_stalled" if stalled else "client_disconnected"
        assert w.record.outcome == expected
        w.assert_clean()


async def test_silence_towards_the_client_is_filled_with_heartbeats(
    autojump_clock: MockClock,
) -> None:
    """A comment leaves after each HEARTBEAT_SECS of silence, in every phase."""
    async with world() as w:
        began = autojump_clock.current_time()
        visit = w.chat("simulator/no-answer")
        await end(visit)
        beats = [t - began for t, data in visit.arrived if data.startswith(b":")]
        # At 20 s the first-token budget ends; which of the two goes first is open.
        assert beats[:4] == pytest.approx([4, 8, 12, 16])


async def test_comments_of_upstream_reset_the_idle_budget_only(
    autojump_clock: MockClock,
) -> None:
    """Upstream's comments keep a stream alive and never reach the client."""
    async with world() as w:
        visit = w.chat("simulator/mumbling")
        await trio.sleep(BUDGETS.idle_s * 4)
        assert not visit.over.is_set()
        assert b"OPENROUTER" not in visit.body
        visit.leave()
        await end(visit)


async def test_what_upstream_refuses_with_permission_is_tried_again_before_content(
    autojump_clock: MockClock,
) -> None:
    """Two overloads and then an answer: the client sees only the answer."""
    async with world() as w:
        model = "simulator/default?status=503&fail_times=2&retry_after=0"
        visit = w.chat(model, max_tokens=3)
        await end(visit)
        assert visit.types == ["connected", *["content"] * 3, "done"]
        assert w.record.attempts == 3
        w.assert_clean()


async def test_the_permit_comes_back_when_the_body_is_never_entered(
    autojump_clock: MockClock,
) -> None:
    """A client that leaves while it is being admitted leaves nothing behind."""
    async with world() as w:
        for steps in range(12):
            visit = w.chat()
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            visit.leave()
            await end(visit)
            w.assert_clean()
        assert {r.outcome for r in w.records} <= {Outcome.CLIENT_DISCONNECTED}


async def test_a_late_end_of_upstreams_body_holds_no_permit(
    autojump_clock: MockClock,
) -> None:
    """Who has `done` may ask again at once, though upstream's body goes on."""
    async with world(permits=1) as w:
        first = w.chat("simulator/late-end")
        await first.ended.wait()
        second = await end_of(w.chat("simulator/fast"))
        assert second.types[-1] == "done"
        await end(first)
        w.assert_clean()


async def end_of(visit: Visit) -> Visit:
    """Wait for a request's end; return it."""
    await end(visit)
    return visit

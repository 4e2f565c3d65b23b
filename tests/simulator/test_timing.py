"""Timing, exact: the simulator over memory streams on a mock clock."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import trio
import trio.testing

from tests.simulator.client import Client, ask_memory, body_of, in_memory
from trio_ai_stream.simulator.ledger import LedgerRecord
from trio_ai_stream.simulator.schedule import ResponsePhase
from trio_ai_stream.simulator.simulator import Simulator


async def since_received(model: str, **fields: Any) -> dict[str, float]:
    """Return when each mark of a request came, counted from its receipt."""
    simulator = Simulator()
    await ask_memory(model, simulator, **fields)
    (record,) = simulator.ledger.find()
    begin = record.marks["received"].at
    return {mark: round(stamp.at - begin, 6) for mark, stamp in record.marks.items()}


async def test_marks_follow_the_keys(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Head, first token, finish and end come exactly when the keys say."""
    marks = await since_received(
        "simulator/fast?headers_ms=100&comments_ms=30&first_token_ms=200&delay_ms=10"
        "&chunks=5&done_ms=1000"
    )
    assert marks == {
        "head_received": 0,
        "received": 0,
        "headers_sent": 0.1,
        "first_token": 0.33,
        "finish_sent": 0.38,
        "ended": 1.38,
    }


async def test_a_single_answer_takes_as_long_as_the_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Without streaming the head comes when the stream would have ended."""
    model = "simulator/fast?headers_ms=100&first_token_ms=200&delay_ms=10&chunks=5"
    marks = await since_received(model, stream=False)
    assert marks["headers_sent"] == marks["finish_sent"] == 0.35


async def test_a_silent_stream_says_nothing_for_a_day(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Silence is silence until the client leaves, and that is noticed at once."""
    simulator = Simulator()
    async with trio.open_nursery() as nursery:
        client = in_memory(nursery, simulator)
        await client.send(body=body_of("simulator/silent"))
        await trio.sleep(86_400)
        (record,) = simulator.ledger.find()
        assert (record.phase, record.events_sent) == (ResponsePhase.STREAMING, 5)
        await client.stream.aclose()
        await simulator.ledger.wait_for(None, "ended")
        assert record.marks["client_gone"].at == record.marks["ended"].at
        assert trio.current_time() == record.marks["ended"].at
    assert (record.outcome, record.gone_how) == ("client_gone", "fin")


async def test_comments_come_at_their_pace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Comments come every `comment_every_ms` and count as no event."""
    simulator = Simulator()
    async with trio.open_nursery() as nursery:
        client = in_memory(nursery, simulator)
        model = "simulator/comments-only?comment_every_ms=100"
        await client.send(body=body_of(model))
        await trio.sleep(1.05)
        (record,) = simulator.ledger.find()
        assert (record.writes, record.events_sent) == (11, 0)
        assert record.phase is ResponsePhase.AWAITING_FIRST_TOKEN
        nursery.cancel_scope.cancel(reason="seen enough")
    assert record.outcome == "cancelled"


async def test_the_schedule_does_not_drift(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Events that fell due while a write was blocked follow at once."""
    simulator = Simulator()
    client_end, server_end = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(simulator.handle, server_end)
        client = Client(client_end)
        await client.send(body=body_of("simulator/fast?delay_ms=100&chunks=20"))
        record = await simulator.ledger.wait_for(None, "received")
        await trio.sleep(1.5)
        assert record.events_sent == 0
        response = await client.read()
        assert response.complete
        await simulator.ledger.wait_for(None, "ended")
        took = record.marks["finish_sent"].at - record.marks["received"].at
        assert took == pytest.approx(2.0)
        nursery.cancel_scope.cancel(reason="answered")


PHASES = {
    ResponsePhase.AWAITING_HEADERS: "simulator/no-answer",
    ResponsePhase.AWAITING_FIRST_TOKEN: "simulator/no-token",
    ResponsePhase.STREAMING: "simulator/silent",
    ResponsePhase.FINISHING: "simulator/fast?done_ms=forever",
}


@pytest.mark.parametrize("phase", PHASES)
async def test_leaving_is_noticed_in_each_phase(
    phase: ResponsePhase, autojump_clock: trio.testing.MockClock
) -> None:
    """A client that leaves is noticed at that instant, with the phase it left in."""
    record = await left_during(PHASES[phase], leave_at=10)
    assert record.gone_phase is phase
    assert record.marks["client_gone"].at == record.marks["received"].at + 10
    assert record.outcome == "client_gone"
    assert record.events_after_gone == 0


async def test_leaving_is_noticed_while_a_write_is_blocked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A reader that stopped and then leaves is noticed though the write is blocked."""
    simulator = Simulator()
    client_end, server_end = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(simulator.handle, server_end)
        await Client(client_end).send(body=body_of("simulator/flood"))
        record = await simulator.ledger.wait_for(None, "received")
        await trio.sleep(5)
        await client_end.aclose()
        await simulator.ledger.wait_for(None, "ended")
    assert record.marks["client_gone"].at == record.marks["received"].at + 5
    assert record.outcome == "client_gone"


async def left_during(model: str, leave_at: float) -> LedgerRecord:
    """Return the record of a request whose client left after so many seconds."""
    simulator = Simulator()
    async with trio.open_nursery() as nursery:
        client = in_memory(nursery, simulator)
        await client.send(body=body_of(model))
        await simulator.ledger.wait_for(None, "received")
        await trio.sleep(leave_at)
        await client.stream.aclose()
    (record,) = simulator.ledger.find()
    return record


async def test_leaving_before_the_request_is_complete(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A request cut short is a record that ended while it was received."""
    simulator = Simulator()
    async with trio.open_nursery() as nursery:
        client = in_memory(nursery, simulator)
        head = b"POST /api/v1/chat/completions HTTP/1.1\r\nContent-Length: 99\r\n\r\n"
        await client.stream.send_all(head + b"{")
        record = await simulator.ledger.wait_for(None, "head_received")
        await trio.sleep(3)
        await client.stream.aclose()
    assert (record.gone_phase, record.outcome) == (
        ResponsePhase.RECEIVING,
        "client_gone",
    )
    assert "received" not in record.marks


async def test_a_slow_read_paces_the_body(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A slow read takes so many bytes at a time, so often."""
    simulator = Simulator()
    prompt = "x" * 10_000
    model = "simulator/fast?read_ms=100&read_bytes=1000&chunks=1"
    await ask_memory(model, simulator, prompt=prompt)
    (record,) = simulator.ledger.find()
    took = record.marks["received"].at - record.marks["head_received"].at
    assert took == pytest.approx(0.9)  # the first read took 2048 bytes


async def test_a_request_that_comes_during_an_answer_is_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A whole request sent before the last answer ended is answered after it."""
    simulator = Simulator()
    async with trio.open_nursery() as nursery:
        client = in_memory(nursery, simulator)
        other = Client(client.stream)
        await client.send(body=body_of("simulator/fast?done_ms=1000&chunks=1"))
        await simulator.ledger.wait_for(None, "finish_sent")
        body = body_of("simulator/fast?chunks=2")
        await other.send(body=body, headers={"x-request-id": "next"})
        assert (await client.read()).complete
        record = await simulator.ledger.wait_for("next", "ended")
        assert (record.outcome, record.tokens_sent) == ("finished", 2)
        assert len((await other.read()).events) == 4
        nursery.cancel_scope.cancel(reason="answered")


@pytest.mark.parametrize("leave_at", [n * 0.0025 for n in range(30)])
async def test_a_cancel_at_any_time_leaves_no_task(
    leave_at: float, autojump_clock: trio.testing.MockClock
) -> None:
    """A connection cancelled at any time is closed, its record ended, no task left."""
    simulator = Simulator()
    ours, theirs = trio.testing.memory_stream_pair()
    client = Client(ours)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(leave_at):
            async with trio.open_nursery() as inner:
                inner.start_soon(simulator.handle, theirs)
                model = "simulator/fast?headers_ms=10&delay_ms=10&chunks=3&done_ms=10"
                inner.start_soon(functools.partial(client.ask, body=body_of(model)))
                await trio.sleep_forever()
        assert not nursery.child_tasks
    assert not simulator.ledger.live
    assert simulator.connections == 0
    with pytest.raises(trio.ClosedResourceError):
        await theirs.send_all(b"x")

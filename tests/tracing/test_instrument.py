"""A trace shows steps, cancels with their reasons, and shields; and it is bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trio
import trio.testing

from cancel_lab.drawing import in_steps, timeline_of
from cancel_lab.timeline import Kind
from tests.sweep.__main__ import replay_token
from trio_ai_stream.tracing import process_trace
from trio_ai_stream.tracing.process_trace import (
    TraceInstrument,
    TraceSink,
    monotonic_us,
)


class VirtualClock:
    """Microseconds of a mock clock; each reading is one later, so that steps show."""

    def __init__(self) -> None:
        self._readings = 0

    def __call__(self) -> float:
        """Return the next instant."""
        self._readings += 1
        return trio.current_time() * 1e6 + self._readings


async def cancelled_behind_a_shield() -> None:
    """Sleep, then be cancelled while cleaning up for half a second."""

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(0.5, shield=True):
                await trio.sleep_forever()

    await trio.sleep(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, name="work")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="enough")


def traced(path: Path) -> list[dict[str, Any]]:
    """Return the events of the program's trace."""
    with TraceSink(path, title="test") as sink:
        trio.run(
            cancelled_behind_a_shield,
            clock=trio.testing.MockClock(autojump_threshold=0),
            instruments=[TraceInstrument(sink, VirtualClock())],
        )
    events: list[dict[str, Any]] = json.loads(path.read_text())
    return events


def test_a_cancel_is_drawn_from_its_call_to_its_delivery(tmp_path):
    """An arrow leads from where Cancelled is queued, with its reason, to the step."""
    events = traced(tmp_path / "t.json")
    queued = [e for e in events if e["name"] == "Cancelled: enough" and e["ph"] == "i"]
    flows = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert [event["args"]["source"] for event in queued] == ["explicit"]
    assert queued[0]["ts"] in {flow["ts"] for flow in flows.values()}
    assert all(ends[number]["ts"] > flows[number]["ts"] for number in ends)
    assert len(ends) >= 1


def test_a_sleep_that_ends_is_no_cancel(tmp_path):
    """Trio ends `sleep` by a Cancelled of its own, which the trace leaves out."""
    events = traced(tmp_path / "t.json")
    names = [event["name"] for event in events if event["ph"] == "i"]
    assert names.count("Cancelled: deadline") == 1  # that of the shield


def test_a_shield_is_drawn_as_long_as_a_task_waits_behind_it(tmp_path):
    """The slice lasts the half second of the clean-up and says its bound."""
    events = traced(tmp_path / "t.json")
    (begin,) = [e for e in events if e["ph"] == "b"]
    (end,) = [e for e in events if e["ph"] == "e"]
    assert begin["args"] == {"bound_s": 0.5}
    assert round((end["ts"] - begin["ts"]) / 1e6, 2) == 0.5


def test_a_trace_becomes_the_report_s_timeline(tmp_path):
    """Tasks become lanes, a shield a hatched span, a cancel an arrow."""
    traced(tmp_path / "t.json")
    trace = timeline_of(tmp_path / "t.json")
    (lane,) = [lane for lane in trace.lanes if lane.name.startswith("work")]
    (shield,) = [span for span in lane.spans if span.kind is Kind.SHIELDED]
    assert round((shield.end_ns - shield.start_ns) / 1e9, 2) == 0.5
    assert all(arrow.from_ns < arrow.to_ns for arrow in trace.arrows)
    assert "Cancelled: enough" in {mark.name for mark in trace.marks}


def test_a_replay_is_drawn_in_steps_of_its_request(tmp_path):
    """Lanes are the tasks that live within the target's life; the act is a mark."""
    replay_token("late-end:0:25:disconnect", tmp_path / "t.json")
    trace = in_steps(timeline_of(tmp_path / "t.json"), "body")
    assert trace.unit == "steps"
    names = [lane.name.rpartition(" ")[0] for lane in trace.lanes]
    assert names[0] == "body"
    assert "upstream" not in names  # it was there before the request
    (own,) = [lane for lane in trace.lanes if lane.name.startswith("body")]
    (life,) = [span for span in own.spans if span.kind is Kind.LIFE]
    assert all(
        span.end_ns <= life.end_ns for lane in trace.lanes for span in lane.spans
    )
    (shield,) = [span for span in own.spans if span.kind is Kind.SHIELDED]
    (act,) = [mark.at_ns for mark in trace.marks if mark.name == "disconnect"]
    assert life.start_ns < act < life.end_ns
    assert shield.start_ns < shield.end_ns


def test_a_trace_is_bounded_and_says_so(tmp_path):
    """Past its limit a trace takes nothing more, and its last event is the reason."""
    path = tmp_path / "t.json"
    with TraceSink(path, title="test", limit_bytes=500) as sink:
        for number in range(100):
            sink.write({"ph": "X", "name": "step", "ts": number, "dur": 1})
    events = json.loads(path.read_text())
    assert path.stat().st_size < 700
    assert events[-1]["name"] == "trace full"
    assert sink.dropped > 80


def test_a_trace_cut_short_lacks_nothing_but_its_bracket(tmp_path):
    """What a process that died had written are whole events, after one bracket."""
    path = tmp_path / "t.json"
    with TraceSink(path, title="test") as sink:
        for number in range(2_000):
            sink.write({"ph": "X", "name": "step", "ts": number, "dur": 1})
        written = path.read_text()
    cut = json.loads(written + "]")
    assert 1_000 < len(cut) < 2_000
    assert cut == json.loads(path.read_text())[: len(cut)]


async def test_a_live_trace_is_whole_when_its_task_is_cancelled(tmp_path):
    """The file carries the process's number, and steps since tracing began, only."""
    path = tmp_path / "live.json"
    before = monotonic_us()
    async with trio.open_nursery() as nursery:
        await nursery.start(process_trace.trace_process, path)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    events = json.loads(process_trace.file_of_process(path).read_text())
    begins = [event["ts"] for event in events if event["ph"] == "X"]
    assert min(begins) >= before
    assert sum(event["ph"] == "X" for event in events) > 2

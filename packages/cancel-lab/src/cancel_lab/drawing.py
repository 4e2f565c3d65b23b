"""A Chrome trace of ours as the report's timeline: lanes, spans, marks, arrows.

In virtual time whole runs take no time at all; their timeline counts steps instead.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from cancel_lab.timeline import Arrow, Kind, Lane, Mark, Span, Trace

Event = dict[str, Any]
CAUSE: Final = "cause"
"""The category of the instant at which a sweep has acted."""


def timeline_of(path: Path) -> Trace:
    """Return what a file of `TraceSink` holds, for `lab report --trace`.

    :raises msgspec.DecodeError: when it is no such file.
    """
    events: list[Event] = [e for e in msgspec.json.decode(path.read_bytes()) if e]
    named = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    lanes = {tid: f"{name} {tid}" for tid, name in named.items()}
    title = next(e["args"]["name"] for e in events if e["name"] == "process_name")
    return Trace(
        title=title,
        lanes=[
            Lane(name=lane, process="server", spans=_spans(events, tid))
            for tid, lane in lanes.items()
        ],
        marks=[
            Mark(name=e["name"], at_ns=_ns(e), lane=lanes.get(e["tid"]))
            for e in events
            if e["ph"] == "i"
            and (e["name"].startswith("Cancelled") or e.get("cat") == CAUSE)
        ],
        arrows=_arrows(events, lanes),
    )


def in_steps(trace: Trace, focus: str) -> Trace:
    """Return what lives within the life of the lane `focus`, a unit for each event.

    Tasks that were there before it, or came after it, are the surroundings of a sweep.
    """
    (own,) = [lane for lane in trace.lanes if lane.name.rpartition(" ")[0] == focus]
    begin, end = own.spans[0].start_ns, own.spans[-1].end_ns
    lanes = [one for one in trace.lanes if begin <= one.spans[0].start_ns <= end]
    names = {lane.name for lane in lanes}
    marks = [
        mark
        for mark in trace.marks
        if begin <= mark.at_ns <= end and mark.lane in {None, *names}
    ]
    spans = [span for lane in lanes for span in lane.spans if span.start_ns < end]
    times = {t for span in spans for t in (span.start_ns, min(span.end_ns, end))}
    order = sorted(times | {mark.at_ns for mark in marks})

    def step(at_ns: int) -> int:
        return bisect.bisect_left(order, min(at_ns, end))

    return Trace(
        title=trace.title,
        unit="steps",
        lanes=[
            Lane(name=lane.name, process=lane.process, spans=_stepped(lane, step, end))
            for lane in lanes
        ],
        marks=[Mark(name=m.name, at_ns=step(m.at_ns), lane=m.lane) for m in marks],
    )


def _stepped(lane: Lane, step: Callable[[int], int], end: int) -> list[Span]:
    spans = [span for span in lane.spans if span.start_ns < end]
    last = max(span.end_ns for span in spans)
    life = Span(kind=Kind.LIFE, start_ns=step(spans[0].start_ns), end_ns=step(last))
    return [
        life,
        *(
            Span(
                kind=span.kind,
                start_ns=step(span.start_ns),
                end_ns=step(span.end_ns),
                label=span.label,
            )
            for span in spans
        ),
    ]


def _ns(event: Event) -> int:
    return round(float(event["ts"]) * 1000)


def _spans(events: list[Event], tid: int) -> list[Span]:
    """Return a lane's steps and shields, in order of their beginning."""
    spans: list[Span] = []
    begun: dict[int, int] = {}
    for event in events:
        if event["tid"] != tid:
            continue
        at = _ns(event)
        if event["ph"] == "X":
            end = at + round(event["dur"] * 1000)
            spans.append(
                Span(kind=Kind.RUN, start_ns=at, end_ns=end, label=event["name"])
            )
        elif event["ph"] == "b":
            begun[event["id"]] = at
        elif event["ph"] == "e" and event["id"] in begun:
            start = begun.pop(event["id"])
            spans.append(Span(kind=Kind.SHIELDED, start_ns=start, end_ns=at))
    return sorted(spans, key=lambda span: span.start_ns)


def _arrows(events: list[Event], lanes: dict[int, str]) -> list[Arrow]:
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    return [
        Arrow(
            name=e["name"],
            from_lane=lanes[starts[e["id"]]["tid"]],
            from_ns=_ns(starts[e["id"]]),
            to_lane=lanes[e["tid"]],
            to_ns=_ns(e),
        )
        for e in events
        if e["ph"] == "f" and e["id"] in starts
    ]

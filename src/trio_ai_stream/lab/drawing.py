"""A Chrome trace of ours as the report's timeline: lanes, spans, marks, arrows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from trio_ai_stream.lab.timeline import Arrow, Kind, Lane, Mark, Span, Trace

Event = dict[str, Any]


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
            if e["ph"] == "i" and e["name"].startswith("Cancelled")
        ],
        arrows=_arrows(events, lanes),
    )


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

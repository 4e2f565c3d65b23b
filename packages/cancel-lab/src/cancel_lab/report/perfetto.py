"""Chrome Trace Event JSON of one run, for ui.perfetto.dev or ``vizviewer``.

Format: the Trace Event Format document of the Chromium project; times in microseconds.
A process of the run is a ``pid``, a lane a ``tid``, a cause and its effect a flow.
"""

from __future__ import annotations

import json
from typing import Any

from cancel_lab.records import RunRecord
from cancel_lab.timeline import Arrow, Kind, Lane, Mark, Span, Trace

Event = dict[str, Any]
PARTIES = {"t_cause": "client", "t_client_end": "client", "t_up": "upstream"}


def trace_events(trace: Trace) -> list[Event]:
    """Return the events of a trace, in the order of lanes, marks, arrows."""
    processes = list(dict.fromkeys(lane.process for lane in trace.lanes))
    place = {
        lane.name: {"pid": processes.index(lane.process) + 1, "tid": number}
        for number, lane in enumerate(trace.lanes, start=1)
    }
    events = [
        _name("process_name", name, {"pid": i}) for i, name in enumerate(processes, 1)
    ]
    for lane in trace.lanes:
        events.append(_name("thread_name", lane.name, place[lane.name]))
        events += [_span(span, place[lane.name]) for span in lane.spans]
    for mark in trace.marks:
        where = place.get(mark.lane or "", {"pid": 1, "tid": 1})
        scope = "t" if mark.lane else "g"
        events.append(
            {"ph": "i", "s": scope, "name": mark.name, "ts": mark.at_ns / 1e3, **where}
        )
    for number, arrow in enumerate(trace.arrows, start=1):
        events += _flow(number, arrow, place)
    return events


def _name(kind: str, name: str, where: dict[str, int]) -> Event:
    return {"ph": "M", "name": kind, "args": {"name": name}, **where}


def _span(span: Span, where: dict[str, int]) -> Event:
    if span.kind is Kind.TOKEN:
        return {
            "ph": "i",
            "s": "t",
            "name": "token",
            "ts": span.start_ns / 1e3,
            **where,
        }
    length = (span.end_ns - span.start_ns) / 1e3
    name = span.label or span.kind.value
    event = {"ph": "X", "cat": span.kind.value, "name": name, "dur": length}
    return event | {"ts": span.start_ns / 1e3} | where


def _flow(number: int, arrow: Arrow, place: dict[str, dict[str, int]]) -> list[Event]:
    common = {"cat": "cause", "name": arrow.name, "id": number}
    start = {"ph": "s", "ts": arrow.from_ns / 1e3, **place[arrow.from_lane]}
    end = {"ph": "f", "bp": "e", "ts": arrow.to_ns / 1e3, **place[arrow.to_lane]}
    return [common | start, common | end]


def trace_of(run: RunRecord) -> Trace:
    """Return the outside view of a record: what client, server and upstream showed."""
    seen = {name: at for name, at in run.times.items() if at is not None}
    lanes = []
    for party in ("client", "server", "upstream"):
        own = {n: at for n, at in seen.items() if PARTIES.get(n, "server") == party}
        if own:
            life = Span(
                kind=Kind.LIFE, start_ns=min(seen.values()), end_ns=max(own.values())
            )
            lanes.append(Lane(name=party, process=party, spans=[life]))
    marks = [
        Mark(name=name, at_ns=at, lane=PARTIES.get(name, "server"))
        for name, at in seen.items()
    ]
    arrows = []
    if "t_cause" in seen and "t_up" in seen:
        arrows.append(
            Arrow(name="cancel", from_lane="client", from_ns=seen["t_cause"],
                  to_lane="upstream", to_ns=seen["t_up"])
        )  # fmt: skip
    title = f"{run.sut.name}: {run.cause}, {run.phase}, {run.transport}"
    return Trace(title=title, lanes=lanes, marks=marks, arrows=arrows)


def chrome_trace(trace: Trace) -> str:
    """Return the JSON document."""
    document = {"traceEvents": trace_events(trace), "displayTimeUnit": "ms"}
    return json.dumps(document | {"metadata": {"title": trace.title}})

"""The trace of one run: lanes of spans and marks; the plots' and Perfetto's input.

Whoever observes a run (from outside: the clients and the simulator; from inside: a
Trio Instrument) writes this format; plot and Chrome trace are drawn from it.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Literal

import msgspec


class Kind(enum.StrEnum):
    """What a lane does during a span."""

    LIFE = "life"
    RUN = "run"
    SHIELDED = "shielded"
    TOKEN = "token"  # noqa: S105 - a chat token


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """From ``start_ns`` to ``end_ns`` a lane did one thing; a token has no length."""

    kind: Kind
    start_ns: int
    end_ns: int
    label: str = ""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened at an instant: t_cause, t_up …"""

    name: str
    at_ns: int
    lane: str | None = None


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """One task, or one outside party, of a process."""

    name: str
    process: str
    spans: list[Span] = []


class Arrow(msgspec.Struct, frozen=True, kw_only=True):
    """A cause and its effect, each on its lane: cancel → Cancelled → FIN."""

    name: str
    from_lane: str
    from_ns: int
    to_lane: str
    to_ns: int


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """One run. All times are of one clock; its zero does not matter.

    With the unit `steps` they count the steps of a schedule.
    """

    title: str
    unit: Literal["ns", "steps"] = "ns"
    lanes: list[Lane]
    marks: list[Mark] = []
    arrows: list[Arrow] = []


def write(path: Path, trace: Trace) -> None:
    """Write a trace as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(trace))


def read(path: Path) -> Trace:
    """Read a trace; msgspec.ValidationError says what is wrong with it."""
    return msgspec.json.decode(path.read_bytes(), type=Trace)

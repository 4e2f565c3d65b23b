"""A Trio run as a Chrome trace: tasks are tracks, steps are slices.

A cancel is drawn where it takes effect: an instant where `Cancelled` is queued for a
task, with source and reason, and an arrow to the step that receives it. A shield is a
slice from the step after which a task was seen waiting behind it to the step after
which it no longer is. A `trio.sleep` that ends is a Cancelled too, inside Trio; those
are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import trio

from trio_ai_stream.tracing import internals
from trio_ai_stream.tracing.trace_sink import TraceSink

Microseconds = Callable[[], float]


def monotonic_us() -> float:
    """Return the host's monotonic clock, which all processes of a host share."""
    return time.monotonic_ns() / 1000


class VirtualClock:
    """Microseconds of a mock clock; each reading is one later, so that steps show."""

    def __init__(self) -> None:
        self._readings = 0

    def __call__(self) -> float:
        """Return the next instant."""
        self._readings += 1
        return trio.current_time() * 1e6 + self._readings


class _Track:
    """What is remembered of one task."""

    __slots__ = ("flow", "number", "shields", "started_us")

    def __init__(self, number: int, started_us: float) -> None:
        self.number = number
        self.started_us = started_us
        self.flow: int | None = None  # of a Cancelled that is on its way
        self.shields: dict[trio.CancelScope, int] = {}


class TraceInstrument(trio.abc.Instrument):
    """Writes what it sees to a sink; an error of its own would only switch it off."""

    def __init__(self, sink: TraceSink, now_us: Microseconds = monotonic_us) -> None:
        self._sink = sink
        self._now_us = now_us
        self._tracks: dict[internals.Task, _Track] = {}
        self._made = 0
        self._marks = 0

    def task_scheduled(self, task: internals.Task) -> None:
        """Draw a Cancelled that was queued."""
        cancelled = internals.pending_cancelled(task)
        if cancelled is None or _ends_a_sleep(task):
            return
        track = self._track(task)
        self._marks += 1
        track.flow = self._marks
        name = f"Cancelled: {cancelled.reason or cancelled.source}"
        why = {
            "source": cancelled.source,
            "reason": cancelled.reason,
            "source_task": cancelled.source_task,
        }
        at = self._now_us()
        self._event(track, at, ph="i", s="t", name=name, args=why)
        self._event(track, at, ph="s", cat="cancel", name=name, id=track.flow)

    def before_task_step(self, task: internals.Task) -> None:
        """Note when a step begins."""
        self._track(task).started_us = self._now_us()

    def after_task_step(self, task: internals.Task) -> None:
        """Draw the step, the arrow that ends in it, and the shields around the wait."""
        track, now = self._track(task), self._now_us()
        start = track.started_us
        self._event(
            track, start, ph="X", name=_where(task), dur=max(now - start, 0.001)
        )
        if track.flow is not None:
            name = "Cancelled delivered"
            self._event(
                track, start, ph="f", bp="e", cat="cancel", name=name, id=track.flow
            )
            track.flow = None
        if internals.over(task):
            del self._tracks[task]
        else:
            self._draw_shields(task, track, now)

    def task_exited(self, task: internals.Task) -> None:
        """End the track: Trio calls this inside the task's last step."""
        track = self._tracks.get(task)
        if track is None:
            return
        now = self._now_us()
        for number in track.shields.values():
            self._event(track, now, ph="e", cat="shield", name="shield", id=number)
        track.shields.clear()
        self._event(track, now, ph="i", s="t", name="task over")

    def note(self, name: str) -> None:
        """Draw an instant of the whole run: something was done to it from outside."""
        at = round(self._now_us(), 3)
        event = {"tid": 0, "ts": at, "ph": "i", "s": "p", "cat": "cause", "name": name}
        self._sink.write(event)

    def _draw_shields(self, task: internals.Task, track: _Track, now: float) -> None:
        scopes = {scope for scope in internals.scopes_of(task) if scope.shield}
        for scope in scopes - track.shields.keys():
            self._marks += 1
            track.shields[scope] = self._marks
            self._event(
                track,
                now,
                ph="b",
                cat="shield",
                name="shield",
                id=self._marks,
                args={"bound_s": scope.deadline - trio.current_time()},
            )
        for scope in track.shields.keys() - scopes:
            number = track.shields.pop(scope)
            self._event(track, now, ph="e", cat="shield", name="shield", id=number)

    def _track(self, task: internals.Task) -> _Track:
        track = self._tracks.get(task)
        if track is None:
            self._made += 1
            # The task that switches tracing on is seen in mid-step first: from here.
            track = self._tracks[task] = _Track(self._made, self._now_us())
            name = task.name.rsplit(".", 1)[-1]
            self._event(track, 0, ph="M", name="thread_name", args={"name": name})
        return track

    def _event(self, track: _Track, at_us: float, **fields: Any) -> None:
        self._sink.write({"tid": track.number, "ts": round(at_us, 3), **fields})


def _where(task: internals.Task) -> str:
    """Name a step after the innermost place of ours at which it left the task."""
    if internals.over(task):
        return "last step"
    for frame, line in reversed(list(task.iter_await_frames())):
        _, found, path = frame.f_code.co_filename.rpartition("trio_ai_stream/")
        if found and not path.startswith("tracing"):
            return f"{frame.f_code.co_name} {path}:{line}"
    return "step"


def _ends_a_sleep(task: internals.Task) -> bool:
    """Tell whether the Cancelled is `trio.sleep`'s own, which its caller never sees."""
    scopes = [s for s in internals.scopes_of(task) if internals.is_cancelled(s)]
    if not scopes or scopes[0] is not internals.scopes_of(task)[-1]:
        return False
    names = [frame.f_code.co_name for frame, _ in task.iter_await_frames()]
    return "sleep_until" in names and not internals.called_explicitly(scopes[0])

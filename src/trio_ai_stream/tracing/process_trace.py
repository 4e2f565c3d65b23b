"""A Trio run as a Chrome trace: tasks are tracks, steps are slices.

A cancel is drawn where it takes effect: an instant where `Cancelled` is queued for a
task, with source and reason, and an arrow to the step that receives it. A shield is a
slice from the step after which a task was seen waiting behind it to the step after
which it no longer is. A `trio.sleep` that ends is a Cancelled too, inside Trio; those
are left out.

It is written as it happens, bounded, and readable if cut short. The array form of the
Trace Event Format (Chromium project) may lack its closing bracket, so the trace of a
process that died opens in ui.perfetto.dev all the same. Times are microseconds. A write
goes to the page cache, from the Trio thread. A live server has one with `TRACE=1`, a
file for each process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import trio
from loguru import logger

from trio_ai_stream.tracing import internals

LIMIT_BYTES: Final = 64 * 1024 * 1024  # about half a million steps
_FLUSH_BYTES: Final = 65_536
_encode = msgspec.json.Encoder().encode


class TraceSink:
    """Appends events until `limit_bytes`; then says so in the trace, and stops."""

    def __init__(
        self, path: Path, *, title: str, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.dropped = 0
        self._left = limit_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._separator = b"[\n"
        self._file = path.open("wb")
        self.write({"ph": "M", "name": "process_name", "args": {"name": title}})

    def write(self, event: dict[str, Any]) -> None:
        """Append one event; `pid` and `tid` default to 1 and 0."""
        line = self._separator + _encode({"pid": 1, "tid": 0, **event})
        if len(line) > self._left:
            self.dropped += 1
            if self.dropped > 1:
                return
            full = {"ph": "i", "s": "g", "name": "trace full", "ts": event.get("ts", 0)}
            line = self._separator + _encode({"pid": 1, "tid": 0, **full})
        self._separator = b",\n"
        self._left -= len(line)
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes > _FLUSH_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end of the array."""
        self._pending.append(b"\n]\n")
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        self._file.write(b"".join(self._pending))
        self._file.flush()
        self._pending.clear()
        self._pending_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def monotonic_us() -> float:
    """Return the host's monotonic clock, which all processes of a host share."""
    return time.monotonic_ns() / 1000


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

    def __init__(
        self, sink: TraceSink, now_us: Callable[[], float] = monotonic_us
    ) -> None:
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


def file_of_process(path: Path) -> Path:
    """Return the path with the process's number before its suffix."""
    return path.with_name(f"{path.stem}-{os.getpid()}{path.suffix}")


async def trace_process(
    path: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Trace this Trio run until cancelled; then the file is whole.

    Costs some microseconds a step while it runs, and nothing when it does not.

    :raises TrioChangedError: if this Trio is not the one that is known here.
    :raises OSError: if the file cannot be written.
    """
    internals.check_version()
    target = file_of_process(path)
    with TraceSink(target, title=f"trio-ai-stream {os.getpid()}") as sink:
        instrument = TraceInstrument(sink)
        trio.lowlevel.add_instrument(instrument)
        logger.warning("tracing every task", event="trace_started", file=str(target))
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            trio.lowlevel.remove_instrument(instrument)

"""A run as a Chrome trace, for ui.perfetto.dev: tasks are tracks, steps are slices.

An instant marks where Cancelled is queued for a task, with its reason, and an arrow
leads to the step that gets it. A shield is a slice for as long as a task waits behind
it. Times are virtual microseconds, one later at each reading so that steps show.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trio

from trio_sweep import internals
from trio_sweep.places import name_of, program_scopes, where


class Trace(trio.abc.Instrument):
    """Draws one run."""

    def __init__(self, title: str) -> None:
        self._events: list[dict[str, Any]] = []
        self._tracks: dict[internals.Task, int] = {}
        self._began: dict[internals.Task, float] = {}
        self._arrows: dict[internals.Task, int] = {}
        self._shields: dict[tuple[internals.Task, trio.CancelScope], int] = {}
        self._readings = self._marks = 0
        self._add(0, 0, ph="M", name="process_name", args={"name": title})

    def write(self, path: Path) -> None:
        """Write the trace.

        :raises OSError: if the file cannot be written.
        """
        path.write_text(json.dumps(self._events, indent=0), encoding="utf-8")

    def note(self, name: str) -> None:
        """Draw an instant of the whole run: something was done to it."""
        self._add(0, self._now(), ph="i", s="p", cat="cause", name=name)

    def task_scheduled(self, task: internals.Task) -> None:
        """Draw a Cancelled that was queued; not that by which `sleep` ends."""
        cancelled = internals.pending_cancelled(task)
        scopes = internals.scopes_of(task)
        if cancelled is None or not any(
            map(internals.is_cancelled, program_scopes(task) or scopes)
        ):
            return
        self._marks += 1
        self._arrows[task] = self._marks
        why = {"source": cancelled.source, "reason": cancelled.reason}
        at, track = self._now(), self._track(task)
        name = f"Cancelled: {cancelled.reason or cancelled.source}"
        self._add(track, at, ph="i", s="t", name=name, args=why)
        self._add(track, at, ph="s", cat="cancel", name="Cancelled", id=self._marks)

    def before_task_step(self, task: internals.Task) -> None:
        """Note when a step begins."""
        self._began[task] = self._now()

    def after_task_step(self, task: internals.Task) -> None:
        """Draw the step, the arrow that ends in it, and the shields around its wait."""
        track, now = self._track(task), self._now()
        start = self._began.pop(task, now)
        over = internals.over(task)
        name = "last step" if over else where(task)
        self._add(track, start, ph="X", name=name, dur=max(now - start, 1))
        arrow = self._arrows.pop(task, None)
        if arrow is not None:
            end = {"ph": "f", "bp": "e", "cat": "cancel", "name": "Cancelled"}
            self._add(track, start, id=arrow, **end)
        scopes = [] if over else list(filter(internals.is_shield, program_scopes(task)))
        for key in [key for key in self._shields if key[0] is task]:
            if key[1] not in scopes:
                self._shield(track, now, "e", self._shields.pop(key))
        for scope in scopes:
            if (task, scope) not in self._shields:
                self._marks += 1
                self._shields[task, scope] = self._marks
                self._shield(track, now, "b", self._marks)
        if over:
            self._add(track, now, ph="i", s="t", name="task over")

    def _shield(self, track: int, at: float, phase: str, number: int) -> None:
        self._add(track, at, ph=phase, cat="shield", name="shield", id=number)

    def _track(self, task: internals.Task) -> int:
        if task not in self._tracks:
            self._tracks[task] = number = len(self._tracks) + 1
            name = {"name": name_of(task)}
            self._add(number, 0, ph="M", name="thread_name", args=name)
        return self._tracks[task]

    def _now(self) -> float:
        self._readings += 1
        return round(trio.current_time() * 1e6 + self._readings, 3)

    def _add(self, track: int, at: float, **fields: Any) -> None:
        self._events.append({"pid": 1, "tid": track, "ts": at, **fields})

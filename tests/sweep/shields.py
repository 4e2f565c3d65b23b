"""How long tasks stood behind shields: seen at boundaries, exact in virtual time.

A shield matters only while a task waits behind it, and a task that waits is seen
waiting by an instrument. An interval runs from the boundary at which a task was first
seen behind a shield to the first at which it no longer is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import trio

from tests.sweep.labels import sites_of
from trio_ai_stream.tracing import internals


@dataclass(slots=True)
class Shielded:
    """One interval behind one shield; `bound_s` is what the shield declared."""

    task: str
    where: str
    since: float
    bound_s: float
    until: float | None = None


class ShieldLog:
    """Collects the intervals of one run."""

    def __init__(self) -> None:
        self.intervals: list[Shielded] = []
        self._open: dict[trio.CancelScope, Shielded] = {}

    def look(self, tasks: Iterable[internals.Task], now: float) -> None:
        """Compare who is behind which shield with the last look."""
        seen: set[trio.CancelScope] = set()
        for task in tasks:
            for scope in internals.shields_of(task):
                seen.add(scope)
                if scope not in self._open:
                    self._open[scope] = self._begin(task, scope, now)
        for scope in [scope for scope in self._open if scope not in seen]:
            self._open.pop(scope).until = now

    def close(self, now: float) -> None:
        """End what is still open: the program is over."""
        for interval in self._open.values():
            interval.until = now
        self._open.clear()

    def _begin(
        self, task: internals.Task, scope: trio.CancelScope, now: float
    ) -> Shielded:
        sites = sites_of(task)
        where = f"{sites[-1][0]}:{sites[-1][1]}" if sites else "outside the program"
        interval = Shielded(task.name, where, now, scope.deadline - now)
        self.intervals.append(interval)
        return interval

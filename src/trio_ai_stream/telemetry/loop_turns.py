"""How long the loop runs tasks before it looks at its sockets again, and what ran."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import trio

# A turn that a reader of a stream may notice.
SLOW_S: Final = 0.05
# A step shorter than that is never why a turn is slow.
_NOTED_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class LoopTurn:
    """One turn: its length, how many steps of tasks it had, and the longest of them."""

    seconds: float = 0.0
    steps: int = 0
    task: str = ""
    task_s: float = 0.0
    collector_s: float = 0.0


class LoopTurns(trio.abc.Instrument):
    """Times the turns of a loop; a quarter of a microsecond for each step of a task."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = self._step_began = self._collection_began = clock()
        self._longest = LoopTurn()
        self._slow = 0
        self._running: str | None = None
        self._clear()

    def _clear(self) -> None:
        self._steps, self._task, self._task_s, self._collector_s = 0, "", 0.0, 0.0

    def __enter__(self) -> Self:
        """Watch the loop that runs this, and the collector."""
        trio.lowlevel.add_instrument(self)
        gc.callbacks.append(self._collecting)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._collecting)
        trio.lowlevel.remove_instrument(self)

    def after_io_wait(self, timeout: float) -> None:
        """Note that tasks run from now on."""
        self._began = self._step_began = self._clock()
        self._clear()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note who runs; the step before it is over."""
        now = self._clock()
        if now - self._step_began > _NOTED_S:
            self._end_step(now)
        self._step_began = now
        self._running = task.name
        self._steps += 1

    def before_io_wait(self, timeout: float) -> None:
        """Note that all tasks that could run have run."""
        now = self._clock()
        seconds = now - self._began
        if seconds >= SLOW_S:
            self._slow += 1
        if seconds > self._longest.seconds:
            self._end_step(now)
            self._longest = LoopTurn(
                seconds, self._steps, self._task, self._task_s, self._collector_s
            )
        self._running = None

    def _end_step(self, now: float) -> None:
        took = now - self._step_began
        if took > self._task_s and self._running is not None:
            self._task, self._task_s = self._running, took

    def _collecting(self, phase: str, _info: dict[str, Any]) -> None:
        now = self._clock()
        if phase == "start":
            self._collection_began = now
        else:
            self._collector_s += now - self._collection_began

    def take(self) -> tuple[LoopTurn, int]:
        """Return the longest turn since the last call, and how many were slow."""
        taken = self._longest, self._slow
        self._longest, self._slow = LoopTurn(), 0
        return taken

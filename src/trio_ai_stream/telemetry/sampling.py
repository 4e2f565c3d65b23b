"""What a worker counts once a second, whether or not somebody scrapes.

A worker's numbers must be in place before another worker is asked for the sum. The
task's own lateness is a number too: how long a ready task waits for its turn is the
load of a Trio process. So is how long the loop runs tasks before it looks at its
sockets again, and what ran.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import trio
from loguru import logger

from trio_ai_stream.telemetry.logs import dropped_records
from trio_ai_stream.telemetry.metrics import Metrics

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


PERIOD_S: Final = 1.0
# A turn stays in the gauge for so many periods: longer than scrapes are apart.
KEPT: Final = 60
_PAGE: Final = resource.getpagesize()
# When this module was imported: a fraction of a second after the start.
_STARTED_AT: Final = time.time()


async def run_sampling(metrics: Metrics, sample: Callable[[int], None]) -> None:
    """Sample until cancelled; the first samples are taken at once.

    `sample` is called each time with the bytes that this process holds, and puts in
    what other rooms count.
    """
    longest = deque([0.0], maxlen=KEPT)
    with LoopTurns() as turns:
        while True:
            metrics.log_records_dropped(dropped_records())
            resident = sample_process(metrics)
            turn, slow = turns.take()
            longest.append(turn.seconds)
            metrics.longest_turn(max(longest))
            if slow:
                metrics.slow_turns(slow)
                _log_slow(turn, slow)
            sample(resident)
            due = trio.current_time() + PERIOD_S
            await trio.sleep_until(due)
            metrics.loop_lag(trio.current_time() - due)


def _log_slow(turn: LoopTurn, slow: int) -> None:
    """Say what ran in the longest of a second's slow turns."""
    logger.warning(
        "a turn of the loop was slow: every stream of this worker waited",
        event="slow_turn",
        duration_ms=round(1000 * turn.seconds, 1),
        steps=turn.steps,
        task=turn.task,
        task_ms=round(1000 * turn.task_s, 1),
        collector_ms=round(1000 * turn.collector_s, 1),
        turns=slow,
    )


def sample_process(metrics: Metrics) -> int:
    """Read /proc, in some tens of microseconds; where there is none, zeros stand.

    :return: resident bytes.
    """
    max_fds = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resident = open_fds = 0
    try:
        # Linux since 6.2 counts them itself; before, the size of the folder is 0.
        open_fds = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
        with open("/proc/self/statm", "rb") as statm:
            resident = int(statm.read().split()[1]) * _PAGE
    except OSError as exc:
        if exc.errno == errno.EMFILE:  # none is left to read it with
            open_fds = max_fds
    metrics.process(
        cpu_s=time.process_time(),
        resident_bytes=resident,
        open_fds=open_fds,
        max_fds=max_fds,
        started_at=_STARTED_AT,
    )
    return resident

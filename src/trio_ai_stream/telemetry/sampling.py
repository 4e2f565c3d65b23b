"""What a worker counts once a second, whether or not somebody scrapes.

A worker's numbers must be in place before another worker is asked for the sum. The
task's own lateness is a number too: how long a ready task waits for its turn is the
load of a Trio process.
"""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from trio_ai_stream.telemetry.logs import dropped_records
from trio_ai_stream.telemetry.metrics import Metrics

PERIOD_S: Final = 1.0
# A turn stays in the gauge for so many periods: longer than scrapes are apart.
KEPT: Final = 60
_PAGE: Final = resource.getpagesize()
# When this module was imported: a fraction of a second after the start.
_STARTED_AT: Final = time.time()


class LongestTurn(trio.abc.Instrument):
    """Times how long the loop runs tasks before it looks at its sockets again."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()
        self._longest = 0.0

    def after_io_wait(self, timeout: float) -> None:
        """Note that tasks run from now on."""
        self._began = self._clock()

    def before_io_wait(self, timeout: float) -> None:
        """Note that all tasks that could run have run."""
        turn = self._clock() - self._began
        if turn > self._longest:
            self._longest = turn

    def take(self) -> float:
        """Return the longest turn since the last call, in seconds."""
        longest, self._longest = self._longest, 0.0
        return longest


async def run_sampling(metrics: Metrics, sample: Callable[[], None]) -> None:
    """Sample until cancelled; the first samples are taken at once.

    `sample` is called each time, and puts in what other rooms count.
    """
    turn = LongestTurn()
    turns = deque([0.0], maxlen=KEPT)
    trio.lowlevel.add_instrument(turn)
    try:
        while True:
            metrics.log_records_dropped(dropped_records())
            sample_process(metrics)
            turns.append(turn.take())
            metrics.longest_turn(max(turns))
            sample()
            due = trio.current_time() + PERIOD_S
            await trio.sleep_until(due)
            metrics.loop_lag(trio.current_time() - due)
    finally:
        trio.lowlevel.remove_instrument(turn)


def sample_process(metrics: Metrics) -> None:
    """Read /proc, in some tens of microseconds; where there is none, zeros stand."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            resident = int(statm.read().split()[1]) * _PAGE
        # Linux since 6.2 counts them itself; before, the size of the folder is 0.
        open_fds = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:  # no /proc, or no descriptor left to read it with
        resident = open_fds = 0
    metrics.process(
        cpu_s=time.process_time(),
        resident_bytes=resident,
        open_fds=open_fds,
        max_fds=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        started_at=_STARTED_AT,
    )

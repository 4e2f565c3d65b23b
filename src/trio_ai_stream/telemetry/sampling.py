"""One task for each worker that brings in, every second, what is counted elsewhere.

A worker's numbers must be in place before another worker is asked for the sum, so they
are not fetched when somebody scrapes. The task's own lateness is a number too: how long
a ready task waits for its turn is the load of a Trio process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from trio_ai_stream.telemetry.logs import dropped_records
from trio_ai_stream.telemetry.metrics import GuardCounts, Metrics
from trio_ai_stream.telemetry.usage import read_usage

PERIOD_S: Final = 1.0
# A turn stays in the gauge for so many periods: longer than scrapes are apart.
KEPT: Final = 60


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


async def run_sampling(
    metrics: Metrics,
    guard: Callable[[], GuardCounts],
    *also: Callable[[], None],
) -> None:
    """Sample until cancelled; the first samples are taken at once.

    `also` are called each time: what other rooms have to say.
    """
    turn = LongestTurn()
    turns = deque([0.0], maxlen=KEPT)
    trio.lowlevel.add_instrument(turn)
    try:
        while True:
            metrics.guard_counts(guard())
            metrics.log_records_dropped(dropped_records())
            metrics.process(read_usage())
            turns.append(turn.take())
            metrics.longest_turn(max(turns))
            for sample in also:
                sample()
            due = trio.current_time() + PERIOD_S
            await trio.sleep_until(due)
            metrics.loop_lag(trio.current_time() - due)
    finally:
        trio.lowlevel.remove_instrument(turn)

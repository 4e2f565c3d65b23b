"""One task for each worker that brings in, every second, what is counted elsewhere.

A worker's numbers must be in place before another worker is asked for the sum, so they
are not fetched when somebody scrapes. The task's own lateness is a number too: how long
a ready task waits for its turn is the load of a Trio process.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_ai_stream.telemetry.logs import dropped_records
from trio_ai_stream.telemetry.metrics import GuardCounts, Metrics

PERIOD_S = 1.0


async def run_sampling(metrics: Metrics, guard: Callable[[], GuardCounts]) -> None:
    """Sample until cancelled; the first samples are taken at once."""
    while True:
        metrics.guard_counts(guard())
        metrics.log_records_dropped(dropped_records())
        due = trio.current_time() + PERIOD_S
        await trio.sleep_until(due)
        metrics.loop_lag(trio.current_time() - due)

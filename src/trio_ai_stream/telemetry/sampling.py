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
from loguru import logger

from trio_ai_stream.telemetry.logs import dropped_records
from trio_ai_stream.telemetry.loop_turns import LoopTurn, LoopTurns
from trio_ai_stream.telemetry.metrics import Metrics

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
    return resident

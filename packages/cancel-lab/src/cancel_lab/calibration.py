"""How late this machine wakes a sleeping task: whether it can judge milliseconds."""

from __future__ import annotations

import time

import trio

from cancel_lab.statistics import quantile

NAPS = 200
NAP_S = 0.005
# A bound of 50 ms is judged only where the machine itself costs no more than a fifth.
LATEST_MS = 10.0


async def lateness_ms() -> float:
    """Return the 99th percentile of how late a task is woken, over a second."""
    late: list[tuple[float, bool]] = []
    for _ in range(NAPS):
        due = time.monotonic_ns() + int(NAP_S * 1e9)
        await trio.sleep(NAP_S)
        late.append(((time.monotonic_ns() - due) / 1e6, True))
    found = quantile(late, 0.99)
    assert found is not None
    return found


def too_busy(late_ms: float) -> str | None:
    """Return why a machine cannot judge, None if it can."""
    if late_ms <= LATEST_MS:
        return None
    return (
        f"expected a machine that wakes a task within {LATEST_MS:g} ms of its time, but"
        f" one in a hundred came {late_ms:.0f} ms late: too busy to judge a bound of"
        " 50 ms; wait until it is idle"
    )

"""Statistics of latencies of which some were never observed.

A latency is a pair ``(value, observed)``; ``observed=False`` means "at least value",
which is what a watch that gave up can honestly say. The estimator is Kaplan and Meier's
(1958): with nothing censored it is the plain empirical distribution. A quantile that
falls where the data are censored is ``None``, to be printed as "not seen".
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

Latency = tuple[float, bool]

MINIMUM_N_FOR_P99 = 100  # below it the 99th percentile is just the largest value
MINIMUM_N_FOR_CLAIM = 20  # below it no server is said to be faster or slower
RESAMPLES = 1000  # enough for two digits of a 95 % interval


class Step(NamedTuple):
    """One step of a distribution function: ``P(latency <= at) = fraction``."""

    at: float
    fraction: float


class Interval(NamedTuple):
    """A bootstrap interval; an end is ``None`` where it lies in the censored part."""

    low: float | None
    high: float | None


class Summary(NamedTuple):
    """What is reported of one cell."""

    n: int
    censored: int
    p50: float | None
    p50_interval: Interval
    p90: float | None
    p99: float | None
    maximum: float | None


def distribution(latencies: Sequence[Latency]) -> list[Step]:
    """Return the estimated distribution function as steps in rising order."""
    ordered = sorted(latencies, key=lambda pair: pair[0])
    at_risk = len(ordered)
    surviving = 1.0
    steps = []
    for value, same in groupby(ordered, key=lambda pair: pair[0]):
        flags = [observed for _, observed in same]
        ended = sum(flags)
        if ended:
            surviving *= 1 - ended / at_risk
            steps.append(Step(value, 1 - surviving))
        at_risk -= len(flags)
    return steps


def quantile(latencies: Sequence[Latency], q: float) -> float | None:
    """Return the smallest value that a share ``q`` does not exceed, None if unseen."""
    if not 0 < q <= 1:
        raise ValueError(f"expected a quantile in (0, 1], got {q}")
    if all(observed for _, observed in latencies):
        values = sorted(value for value, _ in latencies)
        return values[math.ceil(q * len(values)) - 1] if values else None
    slack = 1e-9  # products of fractions fall short of the exact share by a few ulp
    for step in distribution(latencies):
        if step.fraction >= q - slack:
            return step.at
    return None


def bootstrap(
    latencies: Sequence[Latency],
    q: float,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Interval:
    """Return the percentile-bootstrap interval of a quantile.

    The generator is seeded, so the same records give the same interval on any machine.
    """
    if not latencies:
        return Interval(None, None)
    drawn = _resampled(tuple(latencies), q, seed, resamples)
    outside = round((1 - level) / 2 * resamples)  # on each side
    low, high = drawn[outside], drawn[-outside - 1]
    return Interval(
        None if low == math.inf else low, None if high == math.inf else high
    )


@functools.cache  # several tables and levels ask for the same cell
def _resampled(
    latencies: tuple[Latency, ...], q: float, seed: int, resamples: int
) -> Sequence[float]:
    """Return a quantile of each resample in rising order; infinity where unseen."""
    generator = random.Random(seed)  # noqa: S311 - resampling, not secrecy
    count = len(latencies)
    values = [value for value, observed in latencies if observed]
    if len(values) == count:  # mostly so: nothing is censored, and `quantile` is slow
        place = math.ceil(q * count) - 1
        drawn = [
            sorted(generator.choices(values, k=count))[place] for _ in range(resamples)
        ]
    else:
        found = (
            quantile(generator.choices(latencies, k=count), q) for _ in range(resamples)
        )
        drawn = [math.inf if one is None else one for one in found]
    drawn.sort()
    return drawn


def summarize(latencies: Sequence[Latency], *, seed: int = 0) -> Summary:
    """Return the row of one cell; the 99th percentile only from n = 100 on."""
    n = len(latencies)
    censored = sum(not observed for _, observed in latencies)
    if n == 0:
        return Summary(0, 0, None, Interval(None, None), None, None, None)
    return Summary(
        n=n,
        censored=censored,
        p50=quantile(latencies, 0.5),
        p50_interval=bootstrap(latencies, 0.5, seed=seed),
        p90=quantile(latencies, 0.9),
        p99=quantile(latencies, 0.99) if n >= MINIMUM_N_FOR_P99 else None,
        maximum=None if censored else max(value for value, _ in latencies),
    )


def tied(first: Interval, second: Interval) -> bool:
    """Say whether two medians' intervals overlap: then it is reported as a tie."""
    infinity = float("inf")
    lows = [infinity if end is None else end for end in (first.low, second.low)]
    highs = [infinity if end is None else end for end in (first.high, second.high)]
    return max(lows) <= min(highs)

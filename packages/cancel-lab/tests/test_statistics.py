"""Statistics: exact on small samples, honest about what was not seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancel_lab.statistics import (
    Interval,
    bootstrap,
    distribution,
    quantile,
    summarize,
    tied,
)


def seen(*values: float) -> list[tuple[float, bool]]:
    """Return observed latencies."""
    return [(value, True) for value in values]


def test_without_censoring_the_distribution_is_the_empirical_one() -> None:
    """Each of n distinct values is a step of 1/n; equal ones share a step."""
    steps = distribution(seen(3, 1, 1, 2))
    assert [step.at for step in steps] == [1, 2, 3]
    assert [step.fraction for step in steps] == pytest.approx([0.5, 0.75, 1.0])


def test_the_estimate_is_kaplan_and_meiers() -> None:
    """A value censored early leaves the risk set and raises later steps."""
    steps = distribution([(1, True), (2, False), (3, True)])
    assert [step.at for step in steps] == [1, 3]
    assert [step.fraction for step in steps] == pytest.approx([1 / 3, 1.0])


def test_a_quantile_in_the_censored_part_is_none() -> None:
    """Half of the runs never noticed: the median is unknown, not the bound."""
    latencies = [*seen(1.0, 2.0), (50.0, False), (50.0, False), (50.0, False)]
    assert quantile(latencies, 0.4) == 2.0
    assert quantile(latencies, 0.5) is None


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40))
def test_both_ways_to_a_quantile_agree(values: list[int]) -> None:
    """The short cut for complete samples gives what the general estimator gives."""
    latencies = [(float(value), True) for value in values]
    beyond_all = [*latencies, (2000.0, False)]
    for q in (0.5, 0.9):
        share = q * len(values) / len(beyond_all)
        assert quantile(latencies, q) == quantile(beyond_all, share)


def test_no_p99_from_fewer_than_a_hundred() -> None:
    """The 99th percentile of 99 values is withheld, of 100 given."""
    assert summarize(seen(*range(99))).p99 is None
    assert summarize(seen(*range(100))).p99 == 98


def test_the_bootstrap_is_reproducible() -> None:
    """Equal data and seed give an equal interval, and it encloses the median."""
    latencies = seen(*range(30))
    first = bootstrap(latencies, 0.5, seed=4)
    assert first == bootstrap(latencies, 0.5, seed=4)
    assert first.low is not None
    assert first.high is not None
    assert first.low <= 14 <= first.high


def test_an_interval_may_end_in_the_dark() -> None:
    """Where resampled medians fall among censored values, the upper end is unknown."""
    latencies = [*seen(1, 2, 3, 4, 5), *[(9.0, False)] * 5]
    assert bootstrap(latencies, 0.5, seed=0).high is None


def test_overlapping_medians_are_a_tie() -> None:
    """Two samples of one distribution tie; one a hundred times slower does not."""

    def median(latencies: list[tuple[float, bool]]) -> Interval:
        return bootstrap(latencies, 0.5, seed=0)

    fast = median(seen(*range(10, 40)))
    assert tied(fast, median(seen(*range(11, 41))))
    assert not tied(fast, median(seen(*range(1000, 1030))))
    assert not tied(fast, median([(5000.0, False)] * 30))


def test_nothing_summarizes_to_nothing() -> None:
    """An empty cell has n = 0 and no figures."""
    assert summarize([]).n == 0
    assert summarize([]).p50 is None

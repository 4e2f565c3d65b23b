"""The token bucket: what it admits, what it says, and how much memory it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.admission.gate import (
    BucketTable,
    Quota,
    whole_seconds,
)

quotas = st.builds(
    Quota,
    rate=st.floats(0.01, 1_000, allow_nan=False),
    burst=st.integers(1, 50),
)
gaps = st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=200)


@given(quota=quotas, gaps=gaps, start=st.floats(0, 1e6))
def test_no_window_admits_more_than_burst_and_rate(
    quota: Quota, gaps: list[float], start: float
) -> None:
    """Over any window of t seconds at most burst + rate * t requests are admitted."""
    table = BucketTable(quota)
    now, admitted = start, []
    for gap in gaps:
        now += gap
        if table.admit("c", now).allowed:
            admitted.append(now)
    for first, begin in enumerate(admitted):
        for last in range(first, len(admitted)):
            length = admitted[last] - begin
            allowance = quota.burst + quota.rate * length + 1e-3
            assert last - first + 1 <= allowance


@given(quota=quotas, gaps=gaps)
def test_a_client_that_waits_as_told_is_admitted(
    quota: Quota, gaps: list[float]
) -> None:
    """After `retry_after_s` the next request is admitted, and not much sooner."""
    table = BucketTable(quota)
    now = 0.0
    for gap in gaps:
        now += gap
        decision = table.admit("c", now)
        if not decision.allowed:
            early = now + decision.retry_after_s * 0.999 - 1e-6
            if early > now:
                assert not table.admit("c", early).allowed
            now += decision.retry_after_s
            assert table.admit("c", now).allowed


@given(quota=quotas, gaps=gaps)
def test_remaining_is_what_is_admitted_at_once(quota: Quota, gaps: list[float]) -> None:
    """A client told `remaining` gets exactly that many more at the same instant."""
    table = BucketTable(quota)
    now = 0.0
    decision = table.admit("c", now)
    for gap in gaps[:10]:
        now += gap
        decision = table.admit("c", now)
    more = [table.admit("c", now).allowed for _ in range(quota.burst + 1)]
    assert more.count(True) == decision.remaining
    assert 0 <= decision.reset_s <= quota.window_s + 1e-6


@given(quota=quotas, gaps=gaps)
def test_headers_agree_with_each_other(quota: Quota, gaps: list[float]) -> None:
    """Both generations of fields say the same; Retry-After comes with refusals only."""
    table = BucketTable(quota)
    now = 0.0
    for gap in gaps[:20]:
        now += gap / 10
        decision = table.admit("c", now)
        fields = dict(decision.headers())
        remaining, reset = fields["RateLimit-Remaining"], fields["RateLimit-Reset"]
        assert fields["RateLimit-Limit"] == str(quota.burst)
        assert fields["RateLimit"] == f'"requests";r={remaining};t={reset}'
        assert fields["RateLimit-Policy"].startswith(f'"requests";q={quota.burst};w=')
        assert int(reset) >= 1
        assert ("Retry-After" in fields) is not decision.allowed
        if not decision.allowed:
            assert remaining == "0"
            assert fields["Retry-After"] == reset
            assert int(reset) >= decision.retry_after_s - 1e-5


def test_the_seeds_limit_is_ten_at_once_and_ten_a_second() -> None:
    """RATE_LIMIT=10: ten requests pass at once, the eleventh a tenth later."""
    table = BucketTable(Quota.per_second(10))
    decisions = [table.admit("c", 100.0) for _ in range(11)]
    assert [decision.allowed for decision in decisions] == [True] * 10 + [False]
    assert [decision.remaining for decision in decisions] == [*range(9, -1, -1), 0]
    assert dict(decisions[-1].headers()) == {
        "RateLimit-Limit": "10",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "1",
        "RateLimit-Policy": '"requests";q=10;w=1',
        "RateLimit": '"requests";r=0;t=1',
        "Retry-After": "1",
    }
    assert table.admit("c", 100.1).allowed


def test_a_rate_below_one_admits_one_at_a_time() -> None:
    """RATE_LIMIT=0.5 admits one request every two seconds and says so."""
    table = BucketTable(Quota.per_second(0.5))
    assert table.admit("c", 0.0).allowed
    refused = table.admit("c", 0.5)
    assert not refused.allowed
    assert dict(refused.headers())["Retry-After"] == "2"


def test_clients_do_not_share_a_bucket() -> None:
    """One client's requests cost another nothing."""
    table = BucketTable(Quota(1, 1))
    assert table.admit("a", 0.0).allowed
    assert table.admit("b", 0.0).allowed
    assert not table.admit("a", 0.0).allowed


def test_full_buckets_are_forgotten() -> None:
    """The table holds about one window's clients, however many there ever were."""
    table = BucketTable(Quota(10, 10))
    for number in range(20_000):
        table.admit(f"client {number}", number * 0.01)
    assert len(table) <= 100


def test_the_table_never_exceeds_its_capacity() -> None:
    """With more limited clients than the capacity the table stays at the capacity."""
    table = BucketTable(Quota(0.001, 1), capacity=100)
    for number in range(1_000):
        assert table.admit(f"client {number}", number * 0.001).allowed
    assert len(table) == 100


def test_a_flood_of_newcomers_does_not_free_a_limited_client() -> None:
    """A client at its limit stays limited while a flood pushes through the table."""
    quota = Quota(rate=0.5, burst=10)
    table = BucketTable(quota, capacity=100)
    now, admitted = 0.0, 0
    for number in range(20_000):
        now += 0.001
        table.admit(f"flood {number}", now)
        admitted += table.admit("limited", now).allowed
    assert admitted <= quota.burst + quota.rate * now


@pytest.mark.parametrize(
    ("seconds", "whole"), [(0, 1), (0.2, 1), (1.0000001, 1), (1.2, 2)]
)
def test_whole_seconds_round_up_and_are_at_least_one(
    seconds: float, whole: int
) -> None:
    """Retry-After is an integer of at least 1, never sooner than the truth."""
    assert whole_seconds(seconds) == whole

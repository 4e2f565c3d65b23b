"""One stream's own state: what its record says."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.world import BUDGETS
from trio_ai_stream.dialects.plain_chat import PLAIN_CHAT
from trio_ai_stream.stream.estimate import TokenEstimator
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.record import Basis, Outcome, Record


@pytest.mark.parametrize(
    ("reported", "recorded"),
    [
        (7, 7),
        (0, 0),
        (-7, None),
        (10**400, None),
        (True, None),
        ("7", None),
        (7.0, 7),
        (7.5, None),
        (1e400, None),
    ],
)
async def test_only_counts_are_recorded_as_tokens(
    reported: Any, recorded: int | None, autojump_clock: MockClock
) -> None:
    """No number of upstream's makes a counter fall, or the record fail."""
    records: list[Record] = []
    billed: list[Record] = []
    stream = Stream(
        UpstreamRequest("r", "m", b"{}", PLAIN_CHAT),
        BUDGETS,
        owner="local",
        release_permit=lambda: None,
        forget_body=lambda: None,
        on_close=lambda _stream, record: records.append(record),
        on_gap=lambda _seconds: None,
        estimator=TokenEstimator(),
        on_bill=billed.append,
        finishing=set(),
    )
    stream.answer.usage = {"prompt_tokens": reported}
    stream.answer.finish_reason = "stop"
    stream.close(outcome=Outcome.CANCELLED)
    assert records[0].bill.basis is Basis.EXACT
    assert records[0].bill.prompt_tokens == recorded
    assert [record.bill for record in billed] == [records[0].bill]
    assert records[0].bill.completion_tokens is None

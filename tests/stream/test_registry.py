"""What is done to all live streams leaves the others their turns."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.support.world import BUDGETS
from trio_ai_stream.dialects.plain_chat import PLAIN_CHAT
from trio_ai_stream.stream.estimate import TokenEstimator
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.stream.registry import SLICE, Registry
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.record import Outcome

STREAMS = 2 * SLICE + 1


def crowd(owner: str = "local") -> Registry:
    """Return a registry with more streams than one turn may look at."""
    registry = Registry()
    for number in range(STREAMS):
        stream = Stream(
            UpstreamRequest(f"r-{number}", "m", b"{}", PLAIN_CHAT),
            BUDGETS,
            owner=owner,
            release_permit=lambda: None,
            forget_body=lambda: None,
            on_close=lambda _stream, _record: None,
            on_gap=lambda _seconds: None,
            estimator=TokenEstimator(),
            on_bill=lambda _record: None,
            finishing=registry.finishing,
        )
        registry.add(stream)
    return registry


async def test_streams_are_ended_a_slice_at_a_time(autojump_clock: MockClock) -> None:
    """Each call tells as many as one turn may, until all have been told."""
    registry = crowd()
    told = []
    more = True
    while more:
        more = registry.end_streams()
        told.append(sum(stream.ending is not None for stream in registry))
    assert told == [SLICE, 2 * SLICE, STREAMS]


async def test_a_listing_gives_others_their_turns(autojump_clock: MockClock) -> None:
    """What ends meanwhile is not listed, and everybody else is, once."""
    registry = crowd()
    gone = registry.get(f"r-{STREAMS - 1}")
    assert gone is not None
    turns = 0

    async def other() -> None:
        nonlocal turns
        gone.close(outcome=Outcome.CANCELLED)
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        listed = await registry.snapshot(None)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert turns  # Trio's order within one turn is random: one is sure, two are not
    assert [one["id"] for one in listed] == [f"r-{n}" for n in range(STREAMS - 1)]

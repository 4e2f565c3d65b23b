"""What is tried again, and what is not."""

from __future__ import annotations

from collections.abc import Sequence

from stamina.instrumentation import (
    RetryDetails,
    get_on_retry_hooks,
    set_on_retry_hooks,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.stream.test_endings import end
from tests.support.world import world
from trio_ai_stream.stream.outcome import Outcome
from trio_ai_stream.stream.source import Call, Hold, Meanwhile
from trio_ai_stream.upstream.errors import BROKEN
from trio_ai_stream.wire.events import Failure, Item, Reasoning


class OneBlock:
    """An upstream whose whole answer has arrived before it is first read."""

    kind = "simulator"
    generation_id = None

    def __init__(self, *items: Item) -> None:
        self._items = items
        self.opened = 0
        self.ended = True

    async def open(self, _call: Call, meanwhile: Meanwhile, _hold: Hold) -> OneBlock:
        """Answer at once."""
        self.opened += 1
        await meanwhile()
        return self

    async def receive(self) -> Sequence[Item]:
        """Return all of it."""
        return self._items

    async def finish(self) -> None:
        """Nothing is left."""

    def abort(self) -> None:
        """Nothing is open."""


async def test_an_answer_that_began_unseen_is_not_asked_for_again(
    autojump_clock: MockClock,
) -> None:
    """Reasoning that nobody asked to see, and a failure behind it: upstream's failure.

    Nothing had been delivered, so it was tried again, in a state without room for it:
    the client was told of an internal error (found by the sweep).
    """
    async with world() as w:
        upstream = OneBlock(Reasoning("hm"), Failure(BROKEN, "in the stream"))
        w.services.upstream = upstream  # type: ignore[assignment]
        visit = w.chat()
        await end(visit)
        assert visit.types == ["connected", "error"]
        assert visit.events[-1]["error_type"] == BROKEN.error_type
        assert w.record.outcome is Outcome.UPSTREAM_FAILED
        assert upstream.opened == 1


async def test_a_stream_that_was_ended_is_not_tried_again(
    autojump_clock: MockClock,
) -> None:
    """To close upstream's connection looks like a failure of its, which is none."""
    retries: list[RetryDetails] = []

    def note(details: RetryDetails) -> None:
        retries.append(details)

    hooks = get_on_retry_hooks()
    set_on_retry_hooks([note])
    try:
        async with world() as w:
            visit = w.chat("simulator/no-token")
            await wait_all_tasks_blocked()
            visit.leave()
            await end(visit)
            assert w.record.outcome is Outcome.CLIENT_DISCONNECTED
            w.assert_clean()
    finally:
        set_on_retry_hooks(hooks)
    assert retries == []

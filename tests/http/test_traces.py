"""A stream's span: made once, when the stream has ended."""

from __future__ import annotations

from trio.testing import MockClock

from tests.support.completions import ask, over
from tests.support.world import world
from trio_ai_stream.telemetry.ended import EndedStream

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Spans:
    """A tracer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str | None]] = []

    def stream_ended(self, record: EndedStream, traceparent: str | None) -> None:
        """Keep the outcome and the parent."""
        self.told.append((record.outcome, traceparent))

    def close(self) -> None:
        """Do nothing."""


async def test_each_stream_has_one_span(autojump_clock: MockClock) -> None:
    """Whatever ended a stream, the tracer is told once, with the caller's parent."""
    async with world() as w:
        spans = w.services.tracer = Spans()
        await over(ask(w, headers={"traceparent": PARENT}))
        await over(ask(w, "simulator/not-found", stream=False))
        await over(ask(w, messages=[]))
        assert spans.told == [("completed", PARENT), ("upstream_rejected", None)]

"""A stream's span: made once, when the stream has ended."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.completions import ask, over
from tests.support.world import world
from trio_ai_stream.stream.protocols import OnAbortable, OnSent, UpstreamRequest
from trio_ai_stream.wire.record import Record

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Spans:
    """A tracer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str | None]] = []

    def stream_ended(self, record: Record, traceparent: str | None) -> None:
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


class Recording:
    """The world's upstream, with a note of what each call carries of the trace."""

    def __init__(self, upstream: Any) -> None:
        self._upstream = upstream
        self.kind = upstream.kind
        self.traces: list[tuple[tuple[bytes, bytes], ...]] = []

    async def open(
        self, call: UpstreamRequest, on_sent: OnSent, on_abortable: OnAbortable
    ) -> Any:
        """Note, and open."""
        self.traces.append(call.headers)
        return await self._upstream.open(call, on_sent, on_abortable)


STATE = "vendor=a:b,other=1"
CARRIED = [
    ({"traceparent": PARENT}, ((b"traceparent", PARENT.encode()),)),
    (
        {"traceparent": PARENT, "tracestate": STATE},
        ((b"traceparent", PARENT.encode()), (b"tracestate", STATE.encode())),
    ),
    ({"tracestate": STATE}, ()),
    ({"traceparent": PARENT.upper()}, ()),
    ({"traceparent": "00-" + "0" * 32 + PARENT[35:]}, ()),
    ({"traceparent": PARENT + "-more"}, ()),
    (
        {"traceparent": PARENT, "tracestate": "x" * 3000},
        ((b"traceparent", PARENT.encode()),),
    ),
    ({}, ()),
]


@pytest.mark.parametrize(("headers", "carried"), CARRIED)
async def test_the_clients_trace_goes_on_to_upstream(
    headers: dict[str, str],
    carried: tuple[tuple[bytes, bytes], ...],
    autojump_clock: MockClock,
) -> None:
    """`traceparent` and `tracestate` as they came, if valid, from both endpoints."""
    async with world() as w:
        upstream = w.services.upstream = Recording(w.services.upstream)  # type: ignore[assignment]
        await over(ask(w, headers=headers))
        await over(w.visit({"prompt": "hello"}, headers=headers))
        assert upstream.traces == [carried, carried]

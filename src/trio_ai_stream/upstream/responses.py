"""Answers of upstream as a stream reads them: streamed, or one whole document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.upstream.bodies import (
    FREE_BYTES,
    Reservation,
    ResponseBody,
    hold_document,
    read_document,
)
from trio_ai_stream.upstream.chunks import load
from trio_ai_stream.upstream.decoder import Decoder
from trio_ai_stream.upstream.upstream_errors import (
    MALFORMED,
    MISPLACED,
    transport_error,
)
from trio_ai_stream.wire.dialect import Dialect
from trio_ai_stream.wire.events import Failure, Identity, Item, Raw, Usage
from trio_ai_stream.wire.record import Outcome
from trio_ai_stream.wire.validation import without_bom

# Blanks and a byte order mark, which may stand before a document.
_BLANK: Final = b" \t\r\n\xef\xbb\xbf"
_FIELDS: Final = (b"data:", b":", b"event:", b"id:", b"retry:")


@dataclass(slots=True, eq=False, repr=False)
class _HeldResponse:
    """What both kinds of answers are: a body, and what is held of it."""

    _body: ResponseBody
    generation_id: str | None
    _reservation: Reservation
    _dialect: Dialect

    @property
    def ended(self) -> bool:
        """Whether the body has been read to its end."""
        return self._body.ended

    async def finish(self) -> None:
        """Read what is left, so that the connection goes back to the pool."""
        try:
            await self._body.drain()
        except httpx.HTTPError:
            self._body.abort()

    def abort(self) -> None:
        """Close the connection at once, and hold nothing any more."""
        self._reservation.release()
        self._body.abort()


@dataclass(slots=True, eq=False, repr=False)
class StreamedResponse(_HeldResponse):
    """One streamed answer: bytes in, items out.

    A whole completion instead of events is an answer, too.
    """

    _first: bytes = b""  # what has been read of it already
    _decoder: Decoder = field(init=False)
    _document: bytearray | None = None
    _failure: Callable[[], EndStream] | None = None
    _started: bool = False

    def __post_init__(self) -> None:
        dialect = self._dialect
        self._decoder = Decoder(
            raw=dialect.raw,
            named=True,
            read=dialect.read_events,
            whole_events=dialect.whole_events,
        )

    async def receive(self) -> Sequence[Item] | None:
        """Return all items that have arrived; `None` at the end of the body."""
        if self._failure is not None:
            raise self._failure()
        decoder, reservation = self._decoder, self._reservation
        if reservation.size and self._document is None:
            reservation.hold(decoder.held)  # what was returned last has been delivered
        try:
            data = self._first or await self._body.receive()
        except httpx.HTTPError as exc:
            if items := decoder.end():  # what has arrived comes first
                self._failure = _again(transport_error(exc))
                return items
            raise transport_error(exc) from exc
        self._first = b""
        if not self._started and data:
            text = data.lstrip(_BLANK)
            self._started = bool(text)
            if text.startswith(b"{"):
                self._document = bytearray()
        if self._document is not None:
            return self._take_document(self._document, data)
        if not data:
            return decoder.end() or None
        items = decoder.feed(data)
        if decoder.held > FREE_BYTES:
            try:
                reservation.hold(decoder.held)
            except EndStream as exc:  # what has arrived comes first
                self._failure = _again(exc)
        return items

    def _take_document(self, document: bytearray, data: bytes) -> list[Item]:
        """Collect a completion that is labelled as events; return it at its end."""
        if not data:
            return read_answer(bytes(document), self._dialect, as_stream=True)
        document += data
        hold_document(len(document), self._reservation)
        return []


@dataclass(slots=True, eq=False, repr=False)
class DocumentResponse(_HeldResponse):
    """One whole answer as a single block of items."""

    _items: list[Item] | None = None

    async def load_as_stream(self, first: bytes) -> None:
        """Read an answer that should be a stream, of which `first` has been read.

        :raises EndStream: when it is an error, or no answer.
        """
        document = await read_document(self._body, self._reservation, first=first)
        items = read_answer(document, self._dialect, as_stream=True)
        failure = items[-1]
        if isinstance(failure, Failure):
            said = items[:-1]
            worked = any(isinstance(item, Usage) for item in said)
            if self.generation_id is not None:
                said.insert(0, Identity(self.generation_id))
            raise EndStream(
                Outcome.UPSTREAM_FAILED if worked else Outcome.UPSTREAM_REJECTED,
                problem=failure.problem,
                detail=failure.detail,
                said=said,
            )
        self._items = items

    async def receive(self) -> Sequence[Item] | None:
        """Return what the document says, once all of it is here."""
        if self._items is not None:
            return self._items
        document = await read_document(self._body, self._reservation)
        return read_answer(document, self._dialect, as_stream=False)


def read_answer(document: bytes, dialect: Dialect, *, as_stream: bool) -> list[Item]:
    """Return what a whole answer says; its payloads are a stream's, if that is asked.

    :raises EndStream: when it is no answer.
    """
    try:
        items = dialect.read_document(without_bom(document))
        whole = items[0]
        if not as_stream or not isinstance(whole, Raw):  # an error has no document
            return items
        payloads = dialect.as_stream(load(whole.payload)) if dialect.raw else []
    except (ValueError, RecursionError) as exc:
        raise no_answer(document, "one JSON document") from exc
    return [*map(Raw, payloads), *items[1:]]


def no_answer(data: bytes, expected: str) -> EndStream:
    """Return the end of a stream whose upstream sent something else than an answer."""
    if data.lstrip(_BLANK).startswith(b"<"):
        problem, got = MISPLACED, "a web page; check OPENROUTER_BASE_URL"
    else:
        problem, got = MALFORMED, "something else" if data else "nothing"
    detail = f"expected {expected}, got {got}"
    return EndStream(Outcome.UPSTREAM_FAILED, problem=problem, detail=detail)


async def open_unlabelled(
    body: ResponseBody,
    generation_id: str | None,
    reservation: Reservation,
    dialect: Dialect,
) -> StreamedResponse | DocumentResponse:
    """Return the source of an answer that is not labelled as an event stream.

    *Cancellation:* closes the connection.

    :raises EndStream: when it is neither events nor a whole completion.
    """
    first = b""
    try:
        while len(text := first.lstrip(_BLANK)) < max(map(len, _FIELDS)):
            data = await body.receive()
            if not data:
                break
            first += data
            if len(first) > FREE_BYTES:
                break
    except httpx.HTTPError as exc:
        raise transport_error(exc) from exc
    if text.startswith(_FIELDS):
        return StreamedResponse(body, generation_id, reservation, dialect, first)
    if not text.startswith(b"{"):
        raise no_answer(first, "events or a completion")
    source = DocumentResponse(body, generation_id, reservation, dialect)
    await source.load_as_stream(first)
    return source


def _again(failure: EndStream) -> Callable[[], EndStream]:
    """Return what makes the same failure: one that is kept would hold its frames."""
    outcome, problem, detail = failure.outcome, failure.problem, failure.detail
    return lambda: EndStream(outcome, problem=problem, detail=detail)

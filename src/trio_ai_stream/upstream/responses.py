"""Answers of upstream as a stream reads them: streamed, or one whole document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from trio_ai_stream.upstream.decoder import Decoder
from trio_ai_stream.upstream.upstream_errors import (
    MALFORMED,
    MISPLACED,
    transport_error,
)
from trio_ai_stream.wire.dialect import Dialect, ReadDocument
from trio_ai_stream.wire.events import Failure, Identity, Item, Usage
from trio_ai_stream.wire.record import Outcome

# Blanks and a byte order mark, which may stand before a document.
_BLANK: Final = b" \t\r\n\xef\xbb\xbf"
_FIELDS: Final = (b"data:", b":", b"event:", b"id:", b"retry:")


class StreamedResponse:
    """One streamed answer: bytes in, items out; `first` has been read of it already.

    A whole completion instead of events is an answer, too.
    """

    __slots__ = (
        "_body",
        "_decoder",
        "_dialect",
        "_document",
        "_failure",
        "_first",
        "_reservation",
        "_started",
        "generation_id",
    )

    def __init__(
        self,
        body: ResponseBody,
        generation_id: str | None,
        reservation: Reservation,
        dialect: Dialect,
        first: bytes = b"",
    ) -> None:
        self._body = body
        self._decoder = Decoder(
            raw=dialect.raw,
            named=True,
            read=dialect.read_events,
            whole_events=dialect.whole_events,
        )
        self._dialect = dialect
        self._document: bytearray | None = None
        self._failure: Callable[[], EndStream] | None = None
        self._first = first
        self._reservation = reservation
        self._started = False
        self.generation_id = generation_id

    @property
    def ended(self) -> bool:
        """Whether the body has been read to its end."""
        return self._body.ended

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
            if not reservation.fits(decoder.held):
                self._failure = reservation.spent
                return items
            reservation.hold(decoder.held)
        return items

    def _take_document(self, document: bytearray, data: bytes) -> list[Item]:
        """Collect a completion that is labelled as events; return it at its end."""
        if not data:
            return read_answer(bytes(document), _unstreamed(self._dialect))
        document += data
        hold_document(len(document), self._reservation)
        return []

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


class DocumentResponse:
    """One whole answer as a single block of items, which `read` makes of its bytes."""

    __slots__ = ("_body", "_items", "_read", "_reservation", "generation_id")

    def __init__(
        self,
        body: ResponseBody,
        generation_id: str | None,
        reservation: Reservation,
        read: ReadDocument,
    ) -> None:
        self._body = body
        self._items: list[Item] | None = None
        self._read = read
        self._reservation = reservation
        self.generation_id = generation_id

    @property
    def ended(self) -> bool:
        """Whether the document has been read."""
        return self._body.ended

    async def load(self, first: bytes) -> None:
        """Read the document, of which `first` has been read, before it is asked for.

        :raises EndStream: when it is an error, or no answer.
        """
        document = await read_document(self._body, self._reservation, first=first)
        items = read_answer(document, self._read)
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
        return read_answer(document, self._read)

    async def finish(self) -> None:
        """Do nothing: the document has been read to its end."""

    def abort(self) -> None:
        """Close the connection at once, and hold nothing any more."""
        self._reservation.release()
        self._body.abort()


def _unstreamed(dialect: Dialect) -> ReadDocument:
    return lambda document: dialect.read_unstreamed(document, dialect.raw)


def read_answer(document: bytes, read: ReadDocument) -> list[Item]:
    """Return what a whole answer says.

    :raises EndStream: when it is no answer.
    """
    try:
        return read(document)
    except (ValueError, RecursionError) as exc:
        raise no_answer(document, "one JSON document") from exc


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
    source = DocumentResponse(body, generation_id, reservation, _unstreamed(dialect))
    await source.load(first)
    return source


def _again(failure: EndStream) -> Callable[[], EndStream]:
    """Return what makes the same failure: one that is kept would hold its frames."""
    outcome, problem, detail = failure.outcome, failure.problem, failure.detail
    return lambda: EndStream(outcome, problem=problem, detail=detail)

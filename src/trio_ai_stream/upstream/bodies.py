"""Bodies of upstream's responses: decoded, read whole, and bounded over all streams.

Upstream is asked for no compression; one that compresses all the same is decoded (RFC
9110, section 8.4). `BufferBudget` bounds what one process holds in parts of answers.
"""

from __future__ import annotations

from typing import Final, Protocol

import httpx
import trio

from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.upstream.content_codings import (
    DAMAGED,
    Decompressor,
    decompressor_of,
)
from trio_ai_stream.upstream.upstream_errors import MALFORMED, transport_error
from trio_ai_stream.wire.problems import Fault, Problem
from trio_ai_stream.wire.record import Outcome

# So much each stream may hold uncounted: nearly every event is far smaller.
FREE_BYTES: Final = 64 * 1024
# Of an error's body: its reason stands at its beginning.
MAX_ERROR_BYTES: Final = 64 * 1024
ERROR_BODY_S: Final = 2.0
MAX_DOCUMENT_BYTES: Final = 64 * 1024 * 1024

SPENT: Final = Problem(
    503,
    "server_overloaded",
    "this server holds too many large answers at the moment; try again later",
    Fault.SERVER,
    retryable=True,
)


class BufferBudget:
    """The bytes that all streams together may hold beyond `FREE_BYTES` each."""

    __slots__ = ("held", "limit", "refused")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.refused = 0  # streams that ended because there was no room


class Reservation:
    """One stream's part of the budget."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: BufferBudget) -> None:
        self._budget = budget
        self.size = 0

    def hold(self, size: int) -> None:
        """Hold `size` bytes from now on, instead of what was held.

        :raises EndStream: when the budget has no room for them.
        """
        size = size if size > FREE_BYTES else 0
        budget, more = self._budget, size - self.size
        if more > 0 and budget.held + more > budget.limit:
            budget.refused += 1
            raise EndStream(
                Outcome.UPSTREAM_FAILED,
                problem=SPENT,
                detail=f"UPSTREAM_BUFFER_BYTES: {budget.held} of {budget.limit} held",
            )
        budget.held += more
        self.size = size

    def release(self) -> None:
        """Hold nothing any more; idempotent."""
        self.hold(0)


class ResponseBody(Protocol):
    """The body of a response as our transport gives it (`extensions["body"]`)."""

    @property
    def ended(self) -> bool:
        """Whether it has been read to its end, and its connection given back."""

    async def receive(self) -> bytes:
        """Return one block, all that has arrived; `b""` at the end."""

    async def drain(self) -> bool:
        """Read to the end; return whether the connection can be used again."""

    def abort(self) -> None:
        """Close the socket at once."""


def hold_document(size: int, reservation: Reservation) -> None:
    """Hold `size` bytes of a document.

    :raises EndStream: when that is too much, for one or for all streams together.
    """
    reservation.hold(size)
    if size > MAX_DOCUMENT_BYTES:
        detail = f"document larger than {MAX_DOCUMENT_BYTES} bytes"
        raise EndStream(Outcome.UPSTREAM_FAILED, problem=MALFORMED, detail=detail)


async def read_document(
    body: ResponseBody, reservation: Reservation, *, first: bytes = b""
) -> bytes:
    """Return a whole body, of which `first` has been read; the caller bounds the time.

    :raises EndStream: when the connection breaks, there is no end to it, or all streams
        together hold too much.
    """
    parts = [first]
    size = len(first)
    try:
        while data := await body.receive():
            parts.append(data)
            size += len(data)
            hold_document(size, reservation)
    except httpx.HTTPError as exc:
        raise transport_error(exc) from exc
    return b"".join(parts)


async def read_error(body: ResponseBody) -> bytes:
    """Return the beginning of an error's body: what came in time, within a bound."""
    begun = b""
    try:
        with trio.move_on_after(ERROR_BODY_S):
            while len(begun) < MAX_ERROR_BYTES and (data := await body.receive()):
                begun += data
    except httpx.HTTPError:
        pass
    finally:
        body.abort()
    return begun


def decoded(body: ResponseBody, coding: str) -> ResponseBody:
    """Return `body`, decoded if `coding` (`Content-Encoding`) says that it needs it.

    :raises LookupError: when the coding is not known here.
    """
    if coding.strip().lower() in {"", "identity"}:
        return body
    return _DecodedBody(body, decompressor_of(coding))


class _DecodedBody:
    """A body as it was before its compression."""

    __slots__ = ("_body", "_decompressor")

    def __init__(self, body: ResponseBody, decompressor: Decompressor) -> None:
        self._body = body
        self._decompressor = decompressor

    @property
    def ended(self) -> bool:
        return self._body.ended and self._decompressor.hungry

    async def receive(self) -> bytes:
        """Return one block; b"" at the end.

        *Errors:* as the body within, and `httpx.DecodingError` when the bytes are not
        what they were said to be, or end too early. *Cancellation:* as within.
        """
        decompressor = self._decompressor
        while True:
            data = b""
            if decompressor.hungry:
                data = await self._body.receive()
                if not data:
                    if decompressor.finished:
                        return b""
                    raise httpx.DecodingError("the compressed body was cut off")
            else:
                await trio.lowlevel.checkpoint()
            try:
                block = decompressor.feed(data)
            except DAMAGED as exc:
                self.abort()
                raise httpx.DecodingError("the compressed body is damaged") from exc
            if block:
                return block

    async def drain(self) -> bool:
        return await self._body.drain()

    def abort(self) -> None:
        self._body.abort()

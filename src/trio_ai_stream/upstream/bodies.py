"""Bodies of upstream's responses: how they are given, and reading one whole."""

from __future__ import annotations

from typing import Final, Protocol

import httpx
import trio

from trio_ai_stream.stream.outcome import EndStream, Outcome
from trio_ai_stream.upstream.buffering import Reservation
from trio_ai_stream.upstream.errors import MALFORMED, transport_error

# Its reason stands at its beginning.
MAX_ERROR_BYTES: Final = 64 * 1024
ERROR_BODY_S: Final = 2.0
MAX_DOCUMENT_BYTES: Final = 64 * 1024 * 1024


class Body(Protocol):
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
    body: Body, reservation: Reservation, *, first: bytes = b""
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


async def read_error(body: Body) -> bytes:
    """Return the beginning of an error's body: what came in time, within a bound."""
    parts: list[bytes] = []
    size = 0
    try:
        with trio.move_on_after(ERROR_BODY_S):
            while size < MAX_ERROR_BYTES and (data := await body.receive()):
                parts.append(data)
                size += len(data)
            if size < MAX_ERROR_BYTES:
                await body.drain()
    except httpx.HTTPError:
        pass
    finally:
        body.abort()
    return b"".join(parts)

"""An httpx request as HTTP/1.1 bytes: the head, and how the body is framed. Pure.

Whatever could make upstream see another request than the one meant is refused here:
line breaks in a field, two framings, a body that is longer or shorter than announced
(RFC 9112, sections 2.2, 6.2, 6.3 and 11.2).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import lru_cache
from typing import NamedTuple

import httpx

from trio_ai_stream.upstream.transport.transport_errors import InvalidRequestError
from trio_ai_stream.upstream.transport.transport_limits import SEND_BYTES

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")

_BAD_FIELD = "expected header names that are tokens and values without line breaks"

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
"""Methods that may be sent twice (RFC 9110, section 9.2.2)."""

Emit = Callable[[bytes], Awaitable[None]]


class RequestMessage:
    """One request, ready to be written.

    Errors (constructor): `InvalidRequestError` when it cannot be written safely.
    """

    __slots__ = (
        "_left",
        "_started",
        "_stream",
        "chunked",
        "closing",
        "head",
        "idempotent",
        "method",
    )

    def __init__(self, request: httpx.Request) -> None:
        self.method = request.method.upper()
        fields = _read_fields(request.headers.raw)
        target = request.url.raw_path
        if not _TOKEN.fullmatch(self.method.encode()) or not _TARGET.fullmatch(target):
            raise InvalidRequestError(
                "expected a method and a target without blanks or line breaks"
            )
        self.head = b"%b %b HTTP/1.1\r\n%b\r\n" % (
            self.method.encode(),
            target,
            fields.lines,
        )
        self.chunked = fields.chunked
        self.closing = fields.closing
        self._left = fields.length
        self._stream = request.stream
        self._started = False
        self.idempotent = fields.keyed or self.method in _IDEMPOTENT

    def __repr__(self) -> str:
        return (
            f"<RequestMessage {self.method} chunked={self.chunked} left={self._left}>"
        )

    @property
    def replayable(self) -> bool:
        """Tell whether the body could be sent from its start once more."""
        return not self._started

    def small(self) -> bytes | None:
        """Return the whole request if its body is at hand and fits one write."""
        if not isinstance(self._stream, httpx.ByteStream):
            return None
        body = b"".join(self._stream)
        if len(body) > SEND_BYTES:
            return None
        if self.chunked:
            return self.head + self._chunk(body) + b"0\r\n\r\n"
        if len(body) != self._left:
            raise InvalidRequestError(self._mismatch())
        return self.head + body

    async def write(self, emit: Emit) -> None:
        """Hand the request to `emit` as it goes on the wire, at most a block at a time.

        Errors: `InvalidRequestError` when the body does not match its Content-Length,
        before a byte too many is sent; and what the body's own iterator raises.
        Cancellation: the body's iterator is closed.
        """
        await emit(self.head)
        assert isinstance(self._stream, httpx.AsyncByteStream)
        self._started = not isinstance(self._stream, httpx.ByteStream)
        parts = aiter(self._stream)
        try:
            async for data in parts:
                for start in range(0, len(data), SEND_BYTES):
                    await emit(self._framed(data[start : start + SEND_BYTES]))
        finally:
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()
        if self.chunked:
            await emit(b"0\r\n\r\n")
        elif self._left:
            raise InvalidRequestError(self._mismatch())

    def _framed(self, piece: bytes) -> bytes:
        if self.chunked:
            return self._chunk(piece)
        self._left -= len(piece)
        if self._left < 0:
            raise InvalidRequestError(self._mismatch())
        return piece

    @staticmethod
    def _chunk(data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if data else b""

    @staticmethod
    def _mismatch() -> str:
        return "the body's length differs from its Content-Length (0 if not given)"


class _Fields(NamedTuple):
    """What the header fields say to a transport."""

    lines: bytes
    length: int
    chunked: bool
    closing: bool
    keyed: bool


def _read_fields(fields: list[tuple[bytes, bytes]]) -> _Fields:
    lines: list[bytes] = []
    length: int | None = None
    chunked = closing = keyed = False
    for name, value in fields:
        lowered = _lowered(name)
        lines.append(b"%b: %b\r\n" % (name, value))
        if lowered == b"content-length":
            if length is not None or not value.isdigit():
                raise InvalidRequestError("expected one Content-Length, of digits")
            length = int(value)
        elif lowered == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise InvalidRequestError("expected Transfer-Encoding: chunked, alone")
            chunked = True
        elif lowered == b"connection":
            closing = closing or b"close" in value.lower().replace(b",", b" ").split()
        elif lowered == b"idempotency-key":
            keyed = True
    if chunked and length is not None:
        raise InvalidRequestError("expected Content-Length or chunked, not both")
    text = b"".join(lines)
    if not text.count(b"\r") == text.count(b"\n") == len(lines) or b"\0" in text:
        raise InvalidRequestError(_BAD_FIELD)
    return _Fields(text, length or 0, chunked, closing, keyed)


@lru_cache(maxsize=256)  # the names are the same in every request
def _lowered(name: bytes) -> bytes:
    if not _TOKEN.fullmatch(name):
        raise InvalidRequestError(_BAD_FIELD)
    return name.lower()

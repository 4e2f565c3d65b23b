"""HTTP/1.1 messages: a request as bytes, and bytes as a response. No socket, no clock.

Whatever could make upstream see another request than the one meant is refused here:
line breaks in a field, two framings, a body that is longer or shorter than announced
(RFC 9112, sections 2.2, 6.2, 6.3 and 11.2).

The grammar of responses is llhttp's, in its strict mode (through httptools). This
module adds what llhttp leaves to its user: the answer to HEAD, what the end of the
connection means, bounds on everything that can grow, and a refusal of any framing that
two parsers could read in two ways (RFC 9112, sections 6.1, 6.3 and 11.2).

Rule 1: one parser reads one response and is then thrown away, so nothing carries over.
Rule 2: parts of the body are collected by C code (`list.append` is the callback), so
a chunk costs no Python call.
Rule 3: parser and callbacks refer to each other; `release` breaks that cycle, so that
memory never waits for the garbage collector.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import httptools
import httpx

from trio_ai_stream.upstream.transport.transport_errors import (
    InvalidRequestError,
    InvalidResponseError,
    UnexpectedEndError,
)
from trio_ai_stream.upstream.transport.transport_limits import (
    SEND_BYTES,
    TransportLimits,
)

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")

_BAD_FIELD = "expected header names that are tokens and values without line breaks"

_MISMATCH = "the body's length differs from its Content-Length (0 if not given)"

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

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        stream: httpx.SyncByteStream | httpx.AsyncByteStream,
    ) -> None:
        self.method = method
        fields = _read_fields(headers)
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
        self._stream = stream
        self._started = False
        self.idempotent = fields.keyed or self.method in _IDEMPOTENT

    @classmethod
    def of(cls, request: httpx.Request) -> RequestMessage:
        """Return httpx's request as one of ours."""
        method, target = request.method.upper(), request.url.raw_path
        return cls(method, target, request.headers.raw, request.stream)

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
            raise InvalidRequestError(_MISMATCH)
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
            raise InvalidRequestError(_MISMATCH)

    def _framed(self, piece: bytes) -> bytes:
        if self.chunked:
            return self._chunk(piece)
        self._left -= len(piece)
        if self._left < 0:
            raise InvalidRequestError(_MISMATCH)
        return piece

    @staticmethod
    def _chunk(data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


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


Headers = list[tuple[bytes, bytes]]


_TLS_ALERT = b"\x15\x03"  # RFC 8446, section 5.1
_SWITCHED = "upstream switched protocols without being asked"


class _StopAfterHeadError(Exception):
    """Stops the C parser where an answer to HEAD ends: llhttp would await a body."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The status line and headers of a final response, names as they came."""

    status: int
    reason: bytes
    http_version: bytes
    headers: Headers


class ResponseParser:
    """One response, fed in pieces of any size.

    `head` is None until the final head is complete; `complete` tells that the last
    byte of the response has been read, and `reusable` whether another request may
    follow on the connection. `failure` is what is wrong after the part of the body that
    was returned last: the parser is of no use afterwards.
    """

    __slots__ = (
        "_close_delimited",
        "_field_bytes",
        "_fields",
        "_head_bytes",
        "_http",
        "_limits",
        "_method",
        "_overhead",
        "_parts",
        "_reason",
        "complete",
        "failure",
        "head",
        "on_body",
        "reusable",
        "trailers",
    )

    def __init__(self, method: str, limits: TransportLimits) -> None:
        self._method = method
        self._limits = limits
        self._parts: list[bytes] = []
        self.on_body = self._parts.append
        self._fields: Headers = []
        self._reason = b""
        self._head_bytes = 0
        self._field_bytes = 0
        self._overhead = 0
        self._close_delimited = False
        self.head: ResponseHead | None = None
        self.trailers: Headers = []
        self.complete = False
        self.failure: InvalidResponseError | None = None
        self.reusable = False
        self._http: httptools.HttpResponseParser | None = httptools.HttpResponseParser(
            self
        )

    def __repr__(self) -> str:
        status = self.head.status if self.head else None
        return f"<ResponseParser status={status} complete={self.complete}>"

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take what arrived and return the part of the body in it, which may be empty.

        Errors: `InvalidResponseError` when it is no response, or is beyond a limit; the
        parser is of no use afterwards. If a part of the body came before the mistake,
        that is returned, and the error is in `failure`. Bytes after the end of the
        response are not an error of this response, but the connection is not `reusable`
        then.
        """
        http = self._http
        if http is None:
            raise InvalidResponseError("data after the response had ended")
        try:
            http.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            try:
                self._stopped(exc, data)
            except InvalidResponseError as failure:
                if not self._parts:
                    raise
                self.failure = failure.with_traceback(None)
        parts = self._parts
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._overhead = 0
            return body
        if not self.complete:
            self._count_overhead(len(data))
        return b""

    def feed_end(self) -> None:
        """Take the end of the connection: whole only if the body ends with it.

        Errors: `UnexpectedEndError` when bytes are missing.
        """
        if self.head is None:
            where = "within the response's head" if self._head_bytes else "unanswered"
            raise UnexpectedEndError(f"upstream closed the connection {where}")
        if not self._close_delimited:
            raise UnexpectedEndError(
                "upstream closed the connection before the end of the body"
            )
        self.complete = True

    def take_head(self) -> ResponseHead:
        """Return the head, and hold its fields no longer: the body may be long."""
        assert self.head is not None
        head = self.head
        self.head = ResponseHead(head.status, head.reason, head.http_version, [])
        self._fields = self.trailers  # what comes behind a head is one
        return head

    def release(self) -> None:
        """Break the reference cycle with the C parser. Idempotent."""
        self._http = None

    def _stopped(self, exc: Exception, data: bytes | memoryview) -> None:
        cause = exc.__context__
        if self.head is None and bytes(data[:2]) == _TLS_ALERT:
            raise InvalidResponseError(
                "the port speaks TLS: the URL should begin with https://"
            ) from exc
        if self.complete:  # the response is whole; what follows it is not ours
            self.reusable = False
        elif isinstance(cause, InvalidResponseError):
            raise cause
        elif isinstance(exc, httptools.HttpParserUpgrade):
            raise InvalidResponseError(_SWITCHED) from exc
        else:
            raise InvalidResponseError(f"expected an HTTP/1.1 response: {exc}") from exc

    def _count_overhead(self, size: int) -> None:
        if self.head is None:
            self._head_bytes += size
            if self._head_bytes > self._limits.max_head_bytes:
                raise InvalidResponseError(
                    f"a head of at most {self._limits.max_head_bytes} bytes was "
                    f"expected, got at least {self._head_bytes}"
                )
            return
        self._overhead += size
        if self._overhead > self._limits.max_overhead_bytes:
            raise InvalidResponseError(
                f"more than {self._limits.max_overhead_bytes} bytes of chunk "
                "extensions or trailers in a row"
            )

    # ---- called by httptools; their names are its interface ----

    def on_message_begin(self) -> None:
        """Refuse a second response: we asked for one."""
        if self.complete:
            raise InvalidResponseError("data after the end of the response")

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase, which may come in pieces."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect one header or, after the head, one trailer."""
        fields = self._fields if self.head is None else self.trailers
        if len(fields) >= self._limits.max_header_count:
            raise InvalidResponseError(
                f"more than {self._limits.max_header_count} header lines"
            )
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > self._limits.max_head_bytes:
            raise InvalidResponseError(
                f"more than {self._limits.max_head_bytes} bytes of header lines"
            )
        # llhttp strips the blanks before a value, not those after (RFC 9112, 5.1).
        fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Settle how the body ends, or drop an informational response."""
        http = self._http
        assert http is not None
        status = http.get_status_code()
        if status == 101:
            raise InvalidResponseError(_SWITCHED)
        if status < 200:
            self._fields, self._reason = [], b""
            return
        version = http.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise InvalidResponseError(f"expected HTTP/1.1, got HTTP/{version}")
        framed = _framing(self._fields)
        bodyless = self._method == "HEAD" or status in {204, 304}
        self._close_delimited = not (framed or bodyless)
        self.reusable = http.should_keep_alive() and not self._close_delimited
        self.head = ResponseHead(
            status, self._reason, f"HTTP/{version}".encode(), self._fields
        )
        if self._method == "HEAD":
            # Some servers send a body all the same, so the connection ends here.
            self.complete = True
            raise _StopAfterHeadError

    def on_message_complete(self) -> None:
        """Note that the last byte of the final response has been read."""
        if self.head is not None:
            self.complete = True


def _framing(fields: Headers) -> bool:
    """Tell whether the body's end is announced; refuse an ambiguous announcement."""
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if codings:
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise InvalidResponseError(
                "Transfer-Encoding: expected 'chunked' alone, got something else"
            )
        return True
    return any(name.lower() == b"content-length" for name, _ in fields)

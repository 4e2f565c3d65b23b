"""HTTP/1.1 on one connection: h11 with bounds, and a short way for chunks.

Reading goes on while a response is written, so that the end of the connection is seen
at once even if the client has pipelined; what is read ahead is bounded. Everything here
that changes state is synchronous, so the reading task and the application's task never
find each other half way.

h11 reads a request leniently in ways that matter: it bounds only what has not yet
arrived whole, it takes a length beside a transfer coding, it unfolds folded fields, and
it takes any byte in a chunk's extension. All but the first let a proxy in front see
another framing than we do. Of a response it checks every field several times over, and
it needs to see only those that steer framing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from math import inf
from time import time
from typing import Any, Final, cast

import h11
import trio
from hypercorn.config import Config

from trio_ai_stream.server.connection import Connection, Phase
from trio_ai_stream.server.http_stream import (
    Headers,
    HTTPStream,
    RequestHead,
    make_head,
)
from trio_ai_stream.server.limits import Limits

_END: Final = re.compile(rb"\n\r?\n")
_FOLD: Final = re.compile(rb"\n[ \t]")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)([^#]*)", re.IGNORECASE)
_EMPTY_LINES: Final = re.compile(rb"(?:\r?\n)*")
# The line that a chunk begins with, as far as it is there, behind the last one's end.
_CHUNK_LINE: Final = re.compile(rb"(?:\r?\n)?+[^\r\n\0]*+(?:\r\n|\r?\Z)")
# The fields that h11 reads in a response.
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_REASONS: Final[Mapping[int, bytes]] = {
    status.value: status.phrase.encode("ascii") for status in HTTPStatus
}
_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\x00\r\n]*\r\n")
_CHUNKED: Final = b"\r\ntransfer-encoding: chunked\r\n"


class HTTP1:
    """One connection's HTTP/1.1."""

    def __init__(self, owner: Connection) -> None:
        self.owner = owner
        self.config = owner.config
        self.limits = owner.limits
        self.stream: HTTPStream | None = None
        self.connection = self._fresh(b"")
        self._chunk_begins = False
        self._held = b""  # what leaves with that which follows it at once
        self._ahead_bytes = 0
        self._resumed: trio.Event | None = None

    def __str__(self) -> str:
        """The two halves of h11's state."""
        return f"HTTP/1.1, {self.connection.states}"

    def _fresh(self, data: bytes) -> h11.Connection:
        connection = h11.Connection(
            h11.SERVER, max_incomplete_event_size=self.limits.header_bytes
        )
        if data:  # nothing would be the end of the connection
            connection.receive_data(data)
        return connection

    async def received(self, data: bytes) -> None:
        """Take bytes from the client; waits while too much is unread by the app."""
        if self.owner.phase is Phase.IDLE:
            self.owner.await_within(Phase.HEAD, self.limits.head_read_s)
        self.connection.receive_data(data)
        if self.owner.phase is Phase.RESPONSE:
            self._ahead_bytes += len(data)
            if self._ahead_bytes > self.limits.read_ahead_bytes:
                self._resumed = trio.Event()
                await self._unless_hung_up(self._resumed.wait)
            return
        self._advance()
        if self.stream is not None and self.stream.inbox.full:
            await self._unless_hung_up(self.stream.inbox.room)

    async def _unless_hung_up(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Read no further until `wait` is over, but look out for the client's end."""
        if await self.owner.transport.hung_up_before(wait):
            self.owner.lost()

    def _advance(self) -> None:
        """Act on every complete event that has arrived."""
        while not self.owner.ending:
            raw = b""
            if self.connection.their_state is h11.IDLE:
                raw = self.connection.trailing_data[0]
                if raw[:1] in {b"\r", b"\n"}:
                    raw = _skip_empty_lines(raw)
                    self.connection = self._fresh(raw)
                    if raw == b"\r":
                        return
            elif self._chunk_begins and _bad_chunk_line(
                self.connection.trailing_data[0]
            ):
                self._refuse(HTTPStatus.BAD_REQUEST)
                return
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as exc:
                exc.__traceback__ = None  # a frame of h11's in it holds the exception
                self._refuse(exc.error_status_hint)
                return
            # By type: h11's events are final, and isinstance() asks an abstract base.
            kind = type(event)
            if kind is h11.Request:
                self._begin(cast("h11.Request", event), raw)
            elif kind is h11.Data and self.stream is not None:
                data = cast("h11.Data", event)
                self._chunk_begins = data.chunk_end
                self.stream.body_came(bytes(data.data))
            elif kind is h11.EndOfMessage and self.stream is not None:
                self._chunk_begins = False
                self.stream.request_ended = True
                self.stream.inbox.put_nowait(b"", more_body=False)
                self.owner.await_within(Phase.RESPONSE, inf)
                # What follows waits for the next request's turn; behind the last one
                # it is ignored (RFC 9112 9.6).
                return
            else:
                if self.stream is not None:
                    self.owner.await_until(Phase.BODY, self.stream.body_deadline)
                return

    def _begin(self, request: h11.Request, raw: bytes) -> None:
        head = _read_request(request, raw, self.config, self.limits)
        if isinstance(head, int):
            self._refuse(head)
            return
        self._chunk_begins = any(
            name == b"transfer-encoding" for name, _ in head.headers
        )
        if self.connection.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(
                status_code=100, headers=[], reason=_reason(100)
            )
            self.owner.transport.write(self.connection.send(go_on) or b"")
        self.stream = HTTPStream(self.owner, self, head)
        self.stream.begin(request.http_version.decode("ascii"))

    def _refuse(self, status: int) -> None:
        """Answer with `status` if a response may still begin; end the connection."""
        self.owner.intervened("bad_request")
        self._answer(status)
        self.owner.end(lingering=True)

    def _answer(self, status: int) -> None:
        if self.stream is not None:
            self.stream.disconnect()
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            response = h11.Response(
                status_code=status,
                reason=_reason(status),
                headers=[*headers, *self.config.response_headers("h11")],
            )
            head = self.connection.send(response) or b""
            end = self.connection.send(h11.EndOfMessage()) or b""
            self.owner.transport.write(head + end)

    def timed_out(self) -> None:
        """Say that a request took too long to arrive, and end the connection."""
        self._answer(408)
        self.owner.end(lingering=True)

    def begin_drain(self) -> None:
        """Do nothing yet: the next response says that it is the last."""

    def close(self) -> None:
        """Let go of the stream: it holds this protocol as well."""
        self.stream = None

    async def send_head(
        self, stream: HTTPStream, status: int, headers: Headers, *, flush: bool
    ) -> None:
        """Write the head; it may wait for what follows if not `flush`."""
        await self._send(self._head(stream, status, headers), flush=flush)

    async def send_body(self, _stream: HTTPStream, data: bytes, *, flush: bool) -> None:
        """Write a part of the body; it may wait for what follows if not `flush`."""
        await self._send(self._bytes_of(h11.Data(data=data)), flush=flush)

    async def send_end(self, stream: HTTPStream) -> None:
        """Write the end of the response."""
        self._write(self._bytes_of(h11.EndOfMessage()))
        await stream.end_written()

    async def _send(self, data: bytes, *, flush: bool) -> None:
        if flush:
            self._write(data)
            await self.owner.transport.drain()
        else:
            self._held += data

    def _write(self, data: bytes) -> None:
        held, self._held = self._held, b""
        self.owner.transport.write(held + data)

    def _head(self, stream: HTTPStream, status: int, headers: Headers) -> bytes:
        """Return the head: h11 decides the framing, the other fields are only text."""
        framing: Headers = []
        lines: list[bytes] = []
        for name, value in [*headers, *_own_headers(self.config, int(time()))]:
            line = _header_line(name, value)
            if line is None:
                framing.append((name, value))
            else:
                lines.append(line)
        if self.owner.last_request or (not stream.request_ended and status >= 400):
            framing.append((b"connection", b"close"))
        response = h11.Response(
            headers=framing, status_code=status, reason=_reason(status)
        )
        head = self._bytes_of(response)
        chunked = stream.head.method != "HEAD" and _CHUNKED in head.lower()
        stream.response_begins(self._write_chunk if chunked else None)
        return head[:-2] + b"".join(lines) + b"\r\n"

    def _bytes_of(self, event: Any) -> bytes:
        return cast("bytes", self.connection.send(event) or b"")

    async def _write_chunk(self, body: bytes) -> None:
        """Write one chunk; h11's state does not change from chunk to chunk."""
        transport = self.owner.transport
        held, self._held = self._held, b""
        transport.write(b"%b%x\r\n%b\r\n" % (held, len(body), body))
        await transport.drain()

    def response_over(self, stream: HTTPStream) -> None:
        """Make ready for the next request, or end the connection."""
        self.stream = None
        stream.disconnect()
        ours, theirs = self.connection.our_state, self.connection.their_state
        if ours is h11.DONE and theirs is h11.DONE and not self.owner.last_request:
            self.connection.start_next_cycle()
            buffered = self.connection.trailing_data[0]
            if buffered:
                self.owner.await_within(Phase.HEAD, self.limits.head_read_s)
            else:
                self.owner.await_within(Phase.IDLE, self.limits.keep_alive_s)
            self._ahead_bytes = 0
            if self._resumed is not None:
                self._resumed.set()
            self._advance()
        elif ours is h11.SEND_BODY and self.connection.their_http_version == b"1.0":
            # The end of the connection would read as the end of the body.
            self.owner.abort()
        else:
            self.owner.end(lingering=theirs is not h11.DONE or ours is not h11.DONE)


def _read_request(
    request: h11.Request, raw: bytes, config: Config, limits: Limits
) -> RequestHead | int:
    """Return a request's head, or the status that refuses it.

    :param raw: the bytes that h11 has made it from, and perhaps more.
    """
    if request.http_version not in {b"1.0", b"1.1"}:
        return 505
    headers = list(request.headers)
    size = len(request.method) + len(request.target)
    size += sum(len(name) + len(value) for name, value in headers)
    if size > limits.header_bytes:
        return 431
    names = {name for name, _ in headers}
    if {b"content-length", b"transfer-encoding"} <= names:
        return 400  # RFC 9112 6.3: the stuff of request smuggling
    if _folded(raw):
        return 400  # RFC 9112 5.2 leaves the choice
    target = request.target
    # Its Host field counts for nothing then (RFC 9112 3.2.2).
    if absolute := _ABSOLUTE.fullmatch(target):
        authority, target = absolute.groups()
        headers = [(b"host", authority), *(h for h in headers if h[0] != b"host")]
        if not target.startswith(b"/"):
            server_wide = request.method == b"OPTIONS" and not target
            target = b"*" if server_wide else b"/" + target
    return make_head(config, request.method, target, headers)


def _folded(raw: bytes) -> bool:
    end = _END.search(raw)
    return _FOLD.search(raw, 0, end.start() if end else len(raw)) is not None


def _skip_empty_lines(raw: bytes) -> bytes:
    """Return what follows the empty lines before a request (RFC 9112 2.2)."""
    return _EMPTY_LINES.sub(b"", raw, count=1)


def _bad_chunk_line(raw: bytes) -> bool:
    """Tell whether a chunk's first line has a bare CR, a bare LF or a NUL.

    :param raw: the bytes behind the last chunk's data; the line may not be whole.
    """
    return _CHUNK_LINE.match(raw) is None


@lru_cache(maxsize=2)
def _own_headers(config: Config, _second: int) -> Headers:
    """Return what the server adds to a response in this second: the date, for one."""
    return config.response_headers("h11")


def _reason(status: int) -> bytes:
    """Return the phrase of a status (RFC 9110 15), empty if it has none."""
    return _REASONS.get(status, b"")


@lru_cache(maxsize=512)  # most fields are the same in every response
def _header_line(name: bytes, value: bytes) -> bytes | None:
    """Return a field as it goes on the wire; None: it steers framing, which is h11's.

    :raises h11.LocalProtocolError: it is not one line.
    """
    if name.lower() in _FRAMING:
        return None
    line = b"%b: %b\r\n" % (name, value)
    if not _LINE.fullmatch(line):
        raise h11.LocalProtocolError("expected a header field in one line")
    return line

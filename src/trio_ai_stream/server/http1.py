"""HTTP/1.1 on one connection: which bytes are whose, and how a response is framed.

Reading goes on while a response is written, so that the end of the connection is seen
at once even if the client has pipelined; what is read ahead is bounded. Everything here
that changes state is synchronous, so the reading task and the application's task never
find each other half way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from math import inf
from time import time
from typing import Final

import trio
from hypercorn.config import Config

from trio_ai_stream.server.connection import Connection, Phase
from trio_ai_stream.server.http1_parser import (
    TOKEN,
    BadRequestError,
    Headers,
    Request,
    RequestParser,
    list_members,
)
from trio_ai_stream.server.http_stream import HTTPStream, make_head

_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)([^#]*)", re.IGNORECASE)
# The fields of a response that steer framing; all others are only text.
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_REASONS: Final[Mapping[int, bytes]] = {
    status.value: status.phrase.encode("ascii") for status in HTTPStatus
}
_LINE: Final = re.compile(TOKEN + rb": [^\x00\r\n]*\r\n")
_NO_BODY: Final = frozenset({204, 304})  # RFC 9110 6.4.1


class FramingError(RuntimeError):
    """The application's response cannot be sent as it is."""


@dataclass(slots=True, eq=False, repr=False)
class HTTP1:
    """One connection's HTTP/1.1."""

    owner: Connection
    stream: HTTPStream | None = None
    _parser: RequestParser = field(init=False)
    _version: str = "1.1"  # that of the request
    _whole: bool = False  # the response; its stream says whether it has begun
    _persists: bool = True  # neither side has said that this is the last one
    _chunked: bool = False
    _left: int | None = None  # bytes of the body that are due, if it was said
    _held: bytes = b""  # what leaves with that which follows it at once
    _ahead_bytes: int = 0
    _resumed: trio.Event | None = None

    def __post_init__(self) -> None:
        self._parser = RequestParser(self.owner.limits.header_bytes)

    def __str__(self) -> str:
        """How far the request and the response are."""
        begun = self.stream is not None and self.stream.begun
        response = "whole" if self._whole else "begun" if begun else "not begun"
        return f"HTTP/1.1, request: {self._parser} awaited, response: {response}"

    async def received(self, data: bytes) -> None:
        """Take bytes from the client; waits while too much is unread by the app."""
        if self.owner.phase is Phase.IDLE:
            self.owner.await_within(Phase.HEAD, self.owner.limits.head_read_s)
        self._parser.feed(data)
        if self.owner.phase is Phase.RESPONSE:
            self._ahead_bytes += len(data)
            if self._ahead_bytes > self.owner.limits.read_ahead_bytes:
                self._resumed = trio.Event()
                await self.owner.unless_hung_up(self._resumed.wait)
            return
        self._advance()
        if self.stream is not None and self.stream.inbox.full:
            await self.owner.unless_hung_up(self.stream.inbox.room)

    def _advance(self) -> None:
        """Act on every complete event that has arrived."""
        while not self.owner.ending:
            try:
                event = self._parser.next_event()
                if isinstance(event, Request):
                    self._begin(event)
                    continue
            except BadRequestError as exc:
                self.owner.intervened("bad_request")
                self._answer(exc.status)
                return
            if self.stream is None:
                return
            if event is None:
                self.owner.await_until(Phase.BODY, self.stream.body_deadline)
                return
            if isinstance(event, bytes):
                self.stream.body_came(event)
                continue
            self.stream.request_ended = True
            self.stream.inbox.put_nowait(b"", more_body=False)
            self.owner.await_within(Phase.RESPONSE, inf)
            # What follows waits for the next request's turn; behind the last one it is
            # ignored (RFC 9112 9.6).
            return

    def _begin(self, request: Request) -> None:
        """Start the application for a request.

        :raises BadRequestError: its head may not be served.
        """
        self._version, self._persists = request.version, request.persists
        target, headers = request.target, request.headers
        # Its Host field counts for nothing then (RFC 9112 3.2.2).
        if absolute := _ABSOLUTE.fullmatch(target):
            authority, target = absolute.groups()
            headers = [(b"host", authority), *(h for h in headers if h[0] != b"host")]
            if not target.startswith(b"/"):
                server_wide = request.method == b"OPTIONS" and not target
                target = b"*" if server_wide else b"/" + target
        head = make_head(self.owner.config, request.method, target, headers)
        self.stream = stream = HTTPStream(self.owner, self)
        if request.expects_continue:
            stream.inbox.on_asked = self._go_on
        stream.begin(head, request.version)

    def _go_on(self) -> None:
        """Ask for the body, which the application wants."""
        self.owner.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, status: int) -> None:
        """Answer with `status` if a response may still begin; end the connection."""
        if self.stream is not None:
            self.stream.disconnect()
        if self.stream is None or not self.stream.begun:
            own = _own_lines(self.owner.config, int(time()))
            head = b"content-length: 0\r\nconnection: close\r\n" + own + b"\r\n"
            self.owner.transport.write(_status_line(status) + head)
            self._whole = True
        self.owner.end(lingering=True)

    def timed_out(self) -> None:
        """Say that a request took too long to arrive, and end the connection."""
        self._answer(408)

    def refuse_late(self) -> None:
        """Answer a request whose end has not come: there is no time for it any more."""
        stream = self.stream
        if stream is not None and not (stream.request_ended or stream.begun):
            self._answer(503)

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

    async def send_body(self, _stream: HTTPStream, data: bytes) -> None:
        """Write a part of the body.

        :raises FramingError: it is more than was announced.
        """
        await self._send(self._framed(data), flush=True)

    async def send_end(self, stream: HTTPStream, data: bytes) -> None:
        """Write the last part of the body, if there is one, and the response's end.

        :raises FramingError: the body is not as long as was announced.
        """
        last = self._framed(data)
        if self._left:
            raise FramingError(f"expected {self._left} bytes more of the body")
        self._whole = True
        self._write(last + b"0\r\n\r\n" if self._chunked else last)
        await stream.end_written()

    def _framed(self, data: bytes) -> bytes:
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise FramingError("expected no more than Content-Length bytes of body")
        return data

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
        """Return the head, and settle what ends the body (RFC 9112 6.3).

        A transfer coding is ours to choose, whatever the application says of it.

        :raises FramingError: it is no head.
        """
        lines = [_status_line(status)]
        length: bytes | None = None
        closes = self.owner.last_request
        closes = closes or (not stream.request_ended and status >= 400)
        for name, value in headers:
            line = _header_line(name, value)
            if line is not None:
                lines.append(line)
            elif name.lower() == b"connection":
                closes = closes or b"close" in list_members(value)
            elif name.lower() == b"content-length":
                length = value
                if not length.isdigit():
                    raise FramingError("expected digits as Content-Length")
        to_head = stream.method == "HEAD"
        if to_head or status in _NO_BODY:
            self._left = 0
        elif length is not None:
            self._left = int(length)
        elif self._version == "1.1":
            self._chunked = True
        else:
            closes = True  # the end of the connection is the end of the body
        if length is not None:
            lines.append(b"content-length: %b\r\n" % length)
        elif self._version == "1.1" and status not in _NO_BODY:
            lines.append(b"transfer-encoding: chunked\r\n")  # HEAD says it of GET
        self._persists = self._persists and not closes
        if not self._persists:
            lines.append(b"connection: close\r\n")
        stream.response_begins(self._write_chunk if self._chunked else None)
        return b"".join([*lines, _own_lines(self.owner.config, int(time())), b"\r\n"])

    async def _write_chunk(self, body: bytes) -> None:
        """Write one chunk."""
        transport = self.owner.transport
        held, self._held = self._held, b""
        transport.write(b"%b%x\r\n%b\r\n" % (held, len(body), body))
        await transport.drain()

    def response_over(self, stream: HTTPStream) -> None:
        """Make ready for the next request, or end the connection."""
        self.stream = None
        stream.disconnect()
        another = self._whole and self._parser.whole and self._persists
        if another and not self.owner.last_request:
            self._next_request()
        elif stream.begun and not self._whole and self._version == "1.0":
            # The end of the connection would read as the end of the body.
            self.owner.abort()
        else:
            # Also if its client does not know: what it has sent ahead, or sends now,
            # would have the kernel destroy the end of the response.
            self.owner.end(lingering=True)

    def _next_request(self) -> None:
        self._parser.start_next()
        self._whole = self._chunked = False
        self._left = None
        if self._parser.ahead:
            self.owner.await_within(Phase.HEAD, self.owner.limits.head_read_s)
        else:
            self.owner.await_within(Phase.IDLE, self.owner.limits.keep_alive_s)
        self._ahead_bytes = 0
        if self._resumed is not None:
            self._resumed.set()
        self._advance()


@lru_cache(maxsize=2)
def _own_lines(config: Config, _second: int) -> bytes:
    """Return what the server adds to a response in this second: the date, for one."""
    return b"".join(b"%b: %b\r\n" % field for field in config.response_headers("h11"))


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    """Return the first line of a response; the phrase may be empty (RFC 9112 4)."""
    return b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b""))


@lru_cache(maxsize=512)  # most fields are the same in every response
def _header_line(name: bytes, value: bytes) -> bytes | None:
    """Return a field as it goes on the wire; None: it steers framing.

    :raises FramingError: it is not one line.
    """
    if name.lower() in _FRAMING:
        return None
    line = b"%b: %b\r\n" % (name, value)
    if not _LINE.fullmatch(line):
        raise FramingError("expected a header field in one line")
    return line

"""HTTP/1.1 on one connection: h11 with bounds, and a short way for chunks.

Reading goes on while a response is written, so that the end of the connection is seen
at once even if the client has pipelined; what is read ahead is bounded. Everything here
that changes state is synchronous, so the reading task and the application's task never
find each other half way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from math import inf
from time import time
from typing import TYPE_CHECKING, Any, cast

import h11
import trio
from hypercorn.protocol.events import Body, EndBody, Event, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol

from trio_ai_stream.server.drain import first_of
from trio_ai_stream.server.guard.h1_request import (
    bad_chunk_line,
    read_request,
    skip_empty_lines,
)
from trio_ai_stream.server.guard.http1_fields import (
    Fields,
    field_line,
    own_fields,
    reason,
)
from trio_ai_stream.server.guard.phases import Phase
from trio_ai_stream.server.guard.stream import GuardedStream

if TYPE_CHECKING:
    from trio_ai_stream.server.guard.connection import Connection

_CHUNKED = b"\r\ntransfer-encoding: chunked\r\n"


class GuardedH11(H11Protocol):
    """Hypercorn's HTTP/1.1 protocol, guarded."""

    connection: h11.Connection
    stream: GuardedStream | None

    def __init__(self, owner: Connection) -> None:
        # Not super().__init__: it makes a parser of its own, and an event.
        self.owner = owner
        self.config = owner.config
        self.limits = owner.limits
        self.stream = None
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
        gone = True

        async def waiting() -> None:
            nonlocal gone
            await wait()
            gone = False

        await first_of(waiting, self.owner.transport.hung_up)
        if gone:
            self.owner.lost()

    def _advance(self) -> None:
        """Act on every complete event that has arrived."""
        while not self.owner.ending:
            raw = b""
            if self.connection.their_state is h11.IDLE:
                raw = self.connection.trailing_data[0]
                if raw[:1] in {b"\r", b"\n"}:
                    raw = skip_empty_lines(raw)
                    self.connection = self._fresh(raw)
                    if raw == b"\r":
                        return
            elif self._chunk_begins and bad_chunk_line(
                self.connection.trailing_data[0]
            ):
                self._refuse(HTTPStatus.BAD_REQUEST)
                return
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as exc:
                self._refuse(exc.error_status_hint)
                return
            # By type: h11's events are final, and isinstance() asks an abstract base.
            kind = type(event)
            if kind is h11.Request:
                self._begin(cast("h11.Request", event), raw)
            elif kind is h11.Data and self.stream is not None:
                data = cast("h11.Data", event)
                self._chunk_begins = data.chunk_end
                self.stream.inbox.put_nowait(bytes(data.data), more_body=True)
            elif kind is h11.EndOfMessage and self.stream is not None:
                self._chunk_begins = False
                self.stream.request_ended = True
                self.stream.inbox.put_nowait(b"", more_body=False)
                self.owner.await_within(Phase.RESPONSE, inf)
                # What follows waits for the next request's turn; behind the last one
                # it is ignored (RFC 9112 9.6).
                return
            else:
                if self.owner.phase is Phase.HEAD and self.stream is not None:
                    self.owner.await_within(Phase.BODY, self.limits.body_read_s)
                return

    def _begin(self, request: h11.Request, raw: bytes) -> None:
        head = read_request(request, raw, self.config, self.limits)
        if isinstance(head, int):
            self._refuse(head)
            return
        self._chunk_begins = any(
            name == b"transfer-encoding" for name, _ in head.headers
        )
        if self.connection.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            self.owner.transport.push(self.connection.send(go_on) or b"")
        self.stream = GuardedStream(self.owner, self.stream_send, STREAM_ID)
        self.stream.begin(
            method=head.method,
            target=head.target,
            http_version=request.http_version.decode("ascii"),
            headers=head.headers,
        )

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
                reason=reason(status),
                headers=[*headers, *self.config.response_headers("h11")],
            )
            head = self.connection.send(response) or b""
            end = self.connection.send(h11.EndOfMessage()) or b""
            self.owner.transport.push(head + end)

    def too_slow(self) -> None:
        """Say that a request took too long to arrive, and end the connection."""
        self._answer(408)
        self.owner.end(lingering=True)

    def begin_drain(self) -> None:
        """Do nothing yet: the next response says that it is the last."""

    async def stream_send(self, event: Event) -> None:
        """Write one part of the response."""
        if isinstance(event, StreamClosed):
            self._response_over()
            return
        if isinstance(event, Response):
            data = self._head(event)
        elif isinstance(event, Body):
            data = self._bytes_of(h11.Data(data=event.data))
        elif isinstance(event, EndBody):
            data = self._bytes_of(h11.EndOfMessage())
        else:
            return  # HTTP/1.1 has no way to say it
        waits = self.stream is not None and self.stream.more_follows
        if waits and not isinstance(event, EndBody):
            self._held += data
            return
        self._push(data)
        if isinstance(event, EndBody) and self.stream is not None:
            await self.stream.end_written()
        else:
            await self.owner.transport.breathe()

    def _push(self, data: bytes) -> None:
        held, self._held = self._held, b""
        self.owner.transport.push(held + data)

    def _head(self, event: Response) -> bytes:
        """Return the head: h11 decides the framing, the other fields are only text."""
        stream = self.stream
        framing: Fields = []
        lines: list[bytes] = []
        for name, value in [*event.headers, *own_fields(self.config, int(time()))]:
            line = field_line(name, value)
            if line is None:
                framing.append((name, value))
            else:
                lines.append(line)
        early = stream is not None and not stream.request_ended
        status = event.status_code
        if self.owner.last_request or (early and status >= 400):
            framing.append((b"connection", b"close"))
        response = h11.Response(
            headers=framing, status_code=status, reason=reason(status)
        )
        head = self._bytes_of(response)
        if stream is not None:
            chunked = stream.scope["method"] != "HEAD" and _CHUNKED in head.lower()
            stream.begins(self._write_chunk if chunked else None)
        return head[:-2] + b"".join(lines) + b"\r\n"

    def _bytes_of(self, event: Any) -> bytes:
        return cast("bytes", self.connection.send(event) or b"")

    async def _write_chunk(self, body: bytes) -> None:
        """Write one chunk; h11's state does not change from chunk to chunk."""
        self._push(b"%x\r\n%b\r\n" % (len(body), body))
        await self.owner.transport.breathe()

    def _response_over(self) -> None:
        """Make ready for the next request, or end the connection."""
        stream, self.stream = self.stream, None
        if stream is None:
            return
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

"""One request and its response: the ASGI scope, the messages, the application's call.

The application is called here, and its failure ends this stream only. What the client
sends comes through an `Inbox`, so a disconnect is told in the very step that finds it.
A piece of a response body takes the short way that the protocol gave with the head.
An `Exchange` says what the server knows of the request that ASGI has no word for.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import time
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote

import trio
from hypercorn.config import Config
from hypercorn.utils import build_and_validate_headers, suppress_body

from trio_ai_stream.server.connection import Connection
from trio_ai_stream.server.http1_parser import BadRequestError, Headers

EXTENSION: Final = "trio_ai_stream.exchange"


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its response, as the connection sees it.

    The server puts a fresh one into `scope["extensions"][EXTENSION]` of each request.
    """

    # The server calls `on_disconnect`'s callback in the very step that finds the client
    # gone. ASGI's `receive` says it to a task, which must exist and get its turn.
    reports_disconnect: bool = False
    # The server ends a request whose body takes too long.
    limits_body_time: bool = False
    # The process has run out of descriptors: this connection has one of the few that
    # are kept for health checks.
    probes_only: bool = False
    # Set by the application when the head that it is about to send may wait for the
    # first piece of the body: one write instead of two.
    body_follows: bool = False
    # Whether the kernel has taken the whole response, with nothing of it left here or
    # lost with the connection; None: the server does not say.
    delivered: bool | None = None
    # The client is gone because its writes made no progress.
    stalled: bool = False
    # It is not gone; the server has cut it off at the end of its drain.
    drained: bool = False
    _disconnected: bool = False
    _on_disconnect: Callable[[], None] | None = None

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once the client is gone; at once, if it is gone."""
        self._on_disconnect = callback
        if self._disconnected:
            callback()

    def ignore_disconnect(self) -> None:
        """Call nothing any more."""
        self._on_disconnect = None

    def disconnect(self, *, stalled: bool = False, drained: bool = False) -> None:
        """Take note that the client is gone, and report it; idempotent."""
        self.stalled = self.stalled or stalled
        if not self._disconnected:
            self.drained = drained
            self._disconnected = True
            if self._on_disconnect is not None:
                self._on_disconnect()


log: Final = logging.getLogger("trio_ai_stream.server")

Message = dict[str, Any]

_ASGI: Final = {"spec_version": "2.1", "version": "3.0"}
# RFC 3986 3.2.2 and 3.2.3, without userinfo: RFC 9110 4.2.4 tells recipients to treat
# it as an error, since it hides the host's name from people.
_AUTHORITY: Final = re.compile(
    rb"(?:\[[0-9A-Fa-fv:.]+\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?"
)
_VISIBLE: Final = re.compile(rb"[!-~]+")


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A head that may pass."""

    method: str
    target: bytes
    headers: Headers


def make_head(
    config: Config, method: bytes, target: bytes, headers: Headers
) -> RequestHead:
    """Return a head that may pass; `headers` have one host at most.

    The forms of a target are RFC 9112 3.2; CONNECT asks for a tunnel, which this server
    does not have (RFC 9110 9.3.6). Methods are case-sensitive (9.1): "head" is not
    HEAD, but ASGI's upper case would make it so, with a body that HTTP then awaits.

    :raises BadRequestError: it may not.
    """
    if method == b"CONNECT" or not method.isupper():
        raise BadRequestError(501)
    if not _VISIBLE.fullmatch(target):
        raise BadRequestError(400)
    if not target.startswith(b"/") and (method, target) != (b"OPTIONS", b"*"):
        raise BadRequestError(400)
    host = next((value for name, value in headers if name == b"host"), b"")
    if not _AUTHORITY.fullmatch(host):
        raise BadRequestError(400)
    if config.server_names and host.decode("ascii") not in config.server_names:
        raise BadRequestError(421)
    return RequestHead(sys.intern(method.decode("ascii")), target, headers)


@dataclass(slots=True, eq=False, repr=False)  # `repr` would show prompts
class Inbox:
    """A request's ASGI messages, bounded by bytes; a disconnect overtakes them.

    Unlike a memory channel it can be told synchronously that the client is gone, it
    never leaves its writer blocked once nobody will read, and it costs an event only
    while somebody waits.
    """

    capacity_bytes: int
    queued_bytes: int = 0
    # Called once, when the application asks for the body before it answers.
    on_asked: Callable[[], None] | None = None
    # Called when the application has taken a message or takes no more.
    on_taken: Callable[[], None] | None = None
    # A few; a deque would be six times as big.
    _messages: list[Message] = field(default_factory=list)
    _gone: bool = False
    _ended: bool = False
    # Parked until there is news.
    _reader: trio.lowlevel.Task | None = None
    _room: trio.Event | None = None

    def put_nowait(self, body: bytes, *, more_body: bool) -> None:
        """Append a part of the body."""
        if self._gone or self._ended:
            return
        self._messages.append(
            {"type": "http.request", "body": body, "more_body": more_body}
        )
        self.queued_bytes += len(body)
        self._rouse()

    @property
    def full(self) -> bool:
        """Whether more of the body should wait."""
        return self.queued_bytes > self.capacity_bytes and not (
            self._gone or self._ended
        )

    async def room(self) -> None:
        """Wait until the application has taken enough, or takes no more at all.

        Cancellation: nothing is lost, the body stays queued.
        """
        while self.full:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()

    def disconnect(self) -> None:
        """Tell the application that the client is gone; idempotent."""
        self._gone = True
        self._messages.clear()
        self.queued_bytes = 0
        self._rouse()
        self._make_room()

    def close(self) -> None:
        """Take note that the application has ended; idempotent."""
        self._ended = True
        self.on_asked = self.on_taken = None
        self._messages.clear()
        self.queued_bytes = 0
        self._make_room()

    async def receive(self) -> Message:
        """Return the next message; after a disconnect always `http.disconnect`.

        It parks without an event, which every live stream would hold. Cancellation:
        no message is lost.

        :raises trio.BusyResourceError: another task waits for a message already.
        """
        if self.on_asked is not None:
            on_asked, self.on_asked = self.on_asked, None
            on_asked()
        if self._messages:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._gone:
                return {"type": "http.disconnect"}
            if self._reader is not None:
                raise trio.BusyResourceError("expected one task to receive, got two")
            self._reader = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)
        message = self._messages.pop(0)
        self.queued_bytes -= len(message["body"])
        if self.queued_bytes <= self.capacity_bytes:
            self._make_room()
        if self.on_taken is not None:
            self.on_taken()
        return message

    def _leave(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _rouse(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            trio.lowlevel.reschedule(reader)

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None


class ResponseWriter(Protocol):
    """HTTP/1.1 or HTTP/2, as a stream of its kind writes its response with it."""

    async def send_head(
        self, stream: Any, status: int, headers: Headers, *, flush: bool
    ) -> None:
        """Write the head; it may wait for what follows if not `flush`."""

    async def send_body(self, stream: Any, data: bytes) -> None:
        """Write a part of the body."""

    async def send_end(self, stream: Any, data: bytes) -> None:
        """Write the last part of the body, if there is one, and the response's end."""

    def response_over(self, stream: Any) -> None:
        """Go on without the stream; a response without its end is broken off."""


@dataclass(slots=True, eq=False, repr=False)
class HTTPStream:
    """A request, its response, and the call of the application.

    What the request said is in its ASGI scope alone, which is the application's once it
    has been called.
    """

    connection: Connection
    writer: ResponseWriter
    exchange: Exchange = field(init=False)
    inbox: Inbox = field(init=False)
    method: str = ""
    # The client is gone, or the exchange is over: nothing more is written.
    closed: bool = False
    # Whether the response's head is out, and whether the whole response is.
    begun: bool = False
    finished: bool = False
    # Whether the application has raised.
    failed: bool = False
    # The short way for the pieces of a body, from the head on.
    write: Callable[[bytes], Awaitable[None]] | None = None
    # Whether the request's end has come; the protocol's to set.
    request_ended: bool = False
    # When it is due; each byte of the body puts it off.
    body_deadline: float = field(init=False)
    _scope: Message | None = None
    _logged: Any = None  # the scope, for an access log, where there is one
    _status: int = 0
    _start_time: float = 0.0

    def __post_init__(self) -> None:
        self.exchange = Exchange(
            reports_disconnect=True,
            limits_body_time=True,
            probes_only=self.connection.spare,
        )
        limits = self.connection.limits
        self.inbox = Inbox(limits.body_queue_bytes)
        self.body_deadline = trio.current_time() + limits.body_read_s

    def begin(self, head: RequestHead, http_version: str) -> None:
        """Start the application."""
        path, _, query = head.target.partition(b"?")
        connection = self.connection
        self.method = head.method
        self._start_time = time()
        self._scope = {
            "type": "http",
            "http_version": http_version,
            "asgi": _ASGI,
            "method": head.method,
            "scheme": "https" if connection.transport.tls else "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": connection.config.root_path,
            "headers": head.headers,
            "client": connection.client,
            "server": connection.server,
            "state": connection.worker.state.copy(),
            "extensions": {EXTENSION: self.exchange},
        }
        if connection.config.log.access_logger is not None:
            self._logged = self._scope
        connection.exchange_begins(self)

    def body_came(self, data: bytes) -> None:
        """Take a part of the request's body."""
        self.body_deadline += len(data) / self.connection.limits.body_bytes_per_s
        self.inbox.put_nowait(data, more_body=True)

    async def run(self) -> None:
        """Call the application; whatever it raises ends this exchange only."""
        try:
            try:
                await self._call()
            except* Exception as group:
                self.failed = True
                self._failed("the application failed on %s", "application_error", group)
            if not self.closed:
                await self._finish()
        finally:
            self.inbox.close()
            self.connection.exchange_ends(self)

    def _call(self) -> Awaitable[None]:
        """Call the application, and leave the scope to it."""
        scope, self._scope = self._scope, None
        return self.connection.worker.app(
            cast("Any", scope),
            cast("Any", self.inbox.receive),
            cast("Any", self.send),
            trio.to_thread.run_sync,
            trio.from_thread.run,
        )

    async def _finish(self) -> None:
        """End a response that the application has left open, or never begun."""
        try:
            if not self.begun:
                headers = [(b"content-length", b"0"), (b"connection", b"close")]
                self._status = 500
                await self.writer.send_head(self, 500, headers, flush=True)
                await self._end(b"")
            self.writer.response_over(self)
        except Exception as exc:
            text = "a response could not be ended on %s"
            self._failed(text, "response_error", exc)
            self.connection.abort()

    def _failed(self, text: str, event: str, exc: BaseException) -> None:
        self.connection.intervened("application_error")
        log.error(text, self.connection, exc_info=exc, extra={"event": event})

    async def send(self, message: Message) -> None:
        """Take one ASGI message from the application; after a disconnect, drop it.

        Cancellation: the message has been taken, whole. A send that is cancelled while
        it waits for the client leaves its bytes queued, so that the next message (say,
        the terminal event) never lands inside a half-written one.
        """
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        kind = message["type"]
        if kind == "http.response.body" and self.begun and not self.finished:
            more = message.get("more_body", False) and self.method != "HEAD"
            body = message.get("body", b"")
            if more and self.write is not None:
                if body:
                    await self.write(body)
                else:
                    await trio.lowlevel.checkpoint()
                return
            data = b"" if suppress_body(self.method, self._status) else bytes(body)
            if not more:
                await self._end(data)
                self.writer.response_over(self)
            elif data:
                await self.writer.send_body(self, data)
        elif kind == "http.response.start" and not self.begun:
            self._status = int(message["status"])
            headers = build_and_validate_headers(message.get("headers", ()))
            flush = not self.exchange.body_follows
            await self.writer.send_head(self, self._status, headers, flush=flush)
            if self.write is not None:
                return  # it was written, and there is only one
            if self.method == "HEAD" and not self.closed:
                # Complete with its head; the body would be made for nobody.
                await self._end(b"")
                self.writer.response_over(self)
        else:
            expected = "http.response.body" if self.begun else "http.response.start"
            raise RuntimeError(f"expected {expected} from the application, got {kind}")
        # Not every message is written, and whoever sends in a loop must pause.
        if not self.finished:
            await trio.lowlevel.checkpoint()

    def response_begins(self, write: Callable[[bytes], Awaitable[None]] | None) -> None:
        """Take note that the response's head is out; `write` is for what follows.

        The protocol calls it as it writes the head: so it is noted also if the send is
        cancelled then.
        """
        self.begun = True
        self.write = write
        self.inbox.on_asked = None  # "100 Continue" would come too late

    async def _end(self, data: bytes) -> None:
        await self.writer.send_end(self, data)
        self.finished = True
        if self._logged is not None:
            response: Any = {"status": self._status, "headers": ()}
            await self.connection.config.log.access(
                self._logged, response, time() - self._start_time
            )

    async def end_written(self) -> None:
        """Wait until the response, whose end was written, is with the kernel."""
        transport, exchange = self.connection.transport, self.exchange
        # At once where it can be known: the client may close while others have a turn,
        # and has had all then.
        lost = self.closed or transport.broken
        exchange.delivered = self.finished = not (lost or transport.pending)
        await transport.drain()
        exchange.delivered |= not (lost or transport.broken)

    def disconnect(self, *, stalled: bool = False, drained: bool = False) -> None:
        """Tell the application that the client is gone; idempotent.

        After a whole response there is nobody to tell: the exchange is over.
        """
        self.closed = True
        self.write = None
        self.inbox.disconnect()
        self.inbox.on_asked = self.inbox.on_taken = None
        if not self.finished:
            self.exchange.disconnect(stalled=stalled, drained=drained)

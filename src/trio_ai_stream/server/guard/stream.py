"""One request and its response: Hypercorn's ASGI stream, guarded.

What differs from `HTTPStream`: the application is called here, its failure ends this
stream only; the client's messages come through an `Inbox`, so a disconnect is told
synchronously; a piece of a response body takes the short way that the protocol gave.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import time
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

import trio
from hypercorn.protocol.events import Event
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream

from trio_ai_stream.server.exchange import EXTENSION, Exchange
from trio_ai_stream.server.guard import records
from trio_ai_stream.server.guard.inbox import Inbox

if TYPE_CHECKING:
    from trio_ai_stream.server.guard.connection import Connection


_ASGI: Final = {"spec_version": "2.1", "version": "3.0"}


class GuardedStream(HTTPStream):
    """A request's ASGI scope, its messages, and the call of the application."""

    def __init__(
        self,
        connection: Connection,
        send: Callable[[Event], Awaitable[None]],
        stream_id: int,
    ) -> None:
        super().__init__(
            connection.app,
            connection.config,
            connection.context,
            connection.task_group,
            connection.transport.tls,
            connection.client,
            connection.server,
            send,
            stream_id,
        )
        self.connection = connection
        self.exchange = Exchange(
            reports_disconnect=True,
            limits_body_time=True,
            probes_only=connection.spare,
        )
        self.inbox = Inbox(connection.limits.body_queue_bytes)
        # The short way for the pieces of a body, from the head on.
        self.write: Callable[[bytes], Awaitable[None]] | None = None
        # Whether what is written now may wait for what comes next.
        self.more_follows = False
        # Whether the request's end has come; the protocol's to set.
        self.request_ended = False

    def begin(
        self,
        *,
        method: str,
        target: bytes,
        http_version: str,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        """Start the application on a request whose head has been checked."""
        path, _, query = target.partition(b"?")
        self.start_time = time()
        self.scope = cast(
            "Any",
            {
                "type": "http",
                "http_version": http_version,
                "asgi": _ASGI,
                "method": method,
                "scheme": self.scheme,
                "path": unquote(path.decode("ascii")),
                "raw_path": path,
                "query_string": query,
                "root_path": self.config.root_path,
                "headers": headers,
                "client": self.client,
                "server": self.server,
                "state": self.connection.state.copy(),
                "extensions": {EXTENSION: self.exchange},
            },
        )
        self.connection.exchange_begins(self)

    async def end_written(self) -> None:
        """Wait until the response, whose end was pushed, is with the kernel."""
        transport, exchange = self.connection.transport, self.exchange
        # At once where it can be known: the client may close while others have a turn.
        lost = self.closed or transport.broken
        exchange.delivered = not (lost or transport.pending)
        await transport.breathe()
        exchange.delivered |= not (lost or transport.broken)

    def begins(self, write: Callable[[bytes], Awaitable[None]] | None) -> None:
        """Take note that the response's head is out; `write` is for what follows.

        Hypercorn takes note only after the send, and so never of one that a cancel has
        met: it would refuse the rest of that response.
        """
        self.state = ASGIHTTPState.RESPONSE
        self.write = write

    async def app_send(self, message: Any) -> None:
        """Take one ASGI message from the application; after a disconnect, drop it.

        Cancellation: the message has been taken, whole. A send that is cancelled while
        it waits for the client leaves its bytes queued, so that the next message (say,
        the terminal event) never lands inside a half-written one.
        """
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        if (
            self.write is not None
            and message is not None
            and message["type"] == "http.response.body"
            and message.get("more_body", False)
        ):
            body = message.get("body", b"")
            if body:
                await self.write(body)
            else:
                await trio.lowlevel.checkpoint()
            return
        self.more_follows = message is not None and self._joins_what_follows(message)
        await super().app_send(message)
        if self.begun and self.response.get("headers"):
            # They are on the wire; a live stream need not hold them.
            self.response = cast("Any", {**self.response, "headers": ()})
        if self.write is not None and message["type"] == "http.response.start":
            return  # it was written, and there is only one
        if self.begun and not self.closed and self.scope["method"] == "HEAD":
            # Complete with its head; the body would be made for nobody.
            end: Any = {"type": "http.response.body"}
            await super().app_send(end)
        # Not every message is written, and whoever sends in a loop must pause.
        if not self.finished:
            await trio.lowlevel.checkpoint()

    def _joins_what_follows(self, message: Any) -> bool:
        """Tell whether what the message writes may leave with what follows it at once.

        A head that the application says so of; a last piece, which the end follows.
        """
        if message["type"] == "http.response.start":
            return self.exchange.body_follows
        last = not message.get("more_body", False)
        return last and message["type"] == "http.response.body"

    async def run(self) -> None:
        """Call the application; whatever it raises ends this exchange only."""
        try:
            try:
                await self.app(
                    self.scope,
                    cast("Any", self.inbox.receive),
                    self.app_send,
                    trio.to_thread.run_sync,
                    trio.from_thread.run,
                )
            except* Exception as group:
                self.connection.intervened("application_error")
                records.application_failed(self.connection, group)
            if not self.closed:
                await self._finish()
        finally:
            self.inbox.close()
            self.connection.exchange_ends(self)

    async def _finish(self) -> None:
        """End a response that the application has left open, or never begun."""
        try:
            await self.app_send(None)
        except Exception as exc:
            self.connection.intervened("application_error")
            records.response_failed(self.connection, exc)
            self.connection.abort()

    def disconnect(self, *, stalled: bool = False) -> None:
        """Tell the application that the client is gone; idempotent.

        After a whole response there is nobody to tell: the exchange is over.
        """
        self.closed = True
        self.write = None
        self.inbox.disconnect()
        self.inbox.on_taken = None
        if not self.finished:
            self.exchange.disconnect(stalled=stalled)

    @property
    def begun(self) -> bool:
        """Whether the response's head is out."""
        return self.state is not ASGIHTTPState.REQUEST

    @property
    def finished(self) -> bool:
        """Whether the whole response is out."""
        return self.state is ASGIHTTPState.CLOSED

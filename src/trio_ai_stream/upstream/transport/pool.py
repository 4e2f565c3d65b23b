"""Connections to upstream, and the pool that keeps them.

A connection sends a request and reads the head of its response. Reading goes on while a
body is being sent, because a server may refuse early and close (RFC 9112, section 9.5).
Such a refusal (a status of 300 or more) ends the sending; a success is not handed out
before the request is whole, because nobody would be left to send the rest of it.

The pool knows which connections are live, which are idle, and which idle one serves
next. All plain calls: a cancellation cannot land inside. Acquire and release take
constant time: each origin's idle connections form a stack, so the warmest is used first
and the surplus ages; one queue over all origins holds them in the order in which they
went idle, so the oldest is found at once. An expired connection is closed when the pool
is next touched, or by `reap`, which costs a request nothing.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import httpx
import trio

from trio_ai_stream.upstream.transport.dial import DialReport, Origin
from trio_ai_stream.upstream.transport.http1_messages import (
    RequestMessage,
    ResponseParser,
)
from trio_ai_stream.upstream.transport.links import CLOSED, ByteLink, ClosedLink
from trio_ai_stream.upstream.transport.transport_errors import ConnectionPhase
from trio_ai_stream.upstream.transport.transport_limits import TransportLimits

CLOSED_LINK = ClosedLink()
"""The link of every connection that was closed."""

OnSent = Callable[[], Awaitable[None]]
"""What the caller does while upstream works."""

_REPLY_S = 1.0
"""How long upstream's answer may take once sending to it has failed."""


@dataclass(frozen=True, slots=True)
class RequestTimeouts:
    """Seconds without progress that each phase may take; infinite when not given."""

    connect_s: float
    write_s: float
    read_s: float

    @classmethod
    def of(cls, request: httpx.Request) -> RequestTimeouts:
        """Read httpx's `timeout` extension; its `pool` has no meaning here."""
        given = request.extensions.get("timeout", {})
        connect, write, read = (
            math.inf if given.get(name) is None else given[name]
            for name in ("connect", "write", "read")
        )
        return cls(connect, write, read)


class UpstreamConnection:
    """An open connection to one origin, used by one request at a time."""

    __slots__ = (
        "_closing",
        "_failure",
        "_sent_before",
        "_whole",
        "answered",
        "idle_since",
        "link",
        "origin",
        "parser",
        "phase",
        "report",
        "served",
    )

    def __init__(self, origin: Origin, link: ByteLink, report: DialReport) -> None:
        self.origin = origin
        self.link = link
        self.report = report
        self.served = 0
        self.idle_since = 0.0
        self.parser: ResponseParser | None = None
        self.phase = ConnectionPhase.WRITE
        self.answered = False
        self._closing = False
        self._whole = False
        self._failure: Exception | None = None
        self._sent_before = 0

    def __repr__(self) -> str:
        scheme = "https" if self.origin.tls else "http"
        return (
            f"<UpstreamConnection {scheme}://{self.origin.host}:{self.origin.port} "
            f"served={self.served} {self.phase.value}>"
        )

    def took_nothing(self, failure: Exception) -> bool:
        """Tell whether upstream certainly has read nothing of the current request.

        Ask before the link is closed. Either not one byte was sent, or upstream's host
        has confirmed none: the end that it sent would have confirmed what it had, and
        one that fell silent would have done so in all the time before we gave it up. A
        reset proves nothing: it may come from a program that has read the request.
        """
        sent = self.link.sent - self._sent_before
        if isinstance(failure, ConnectionResetError):
            return not sent
        return sent <= self.link.unacknowledged()

    @property
    def reusable(self) -> bool:
        """Tell whether another request may follow, once the response has been read.

        Not after half a request, nor when either side said `Connection: close` (RFC
        9112, section 9.6).
        """
        assert self.parser is not None
        return self.parser.reusable and self._whole and not self._closing

    def close(self) -> None:
        """Close the socket at once and let go of the parser. Idempotent."""
        self.link.close()
        self.link = CLOSED_LINK
        if self.parser is not None:
            self.parser.release()

    async def exchange(
        self,
        message: RequestMessage,
        timeouts: RequestTimeouts,
        limits: TransportLimits,
        on_sent: OnSent | None = None,
    ) -> bytes:
        """Send the request; return what of the body came with the response's head.

        `on_sent` is awaited when the request has been handed to the kernel, as far as
        that took it, and before the first wait.

        Errors: whatever the link raises, `InvalidResponseError`, `InvalidRequestError`,
        `trio.TooSlowError`, and what the body's iterator raises; `phase` tells what
        was being done. Cancellation: close the connection, its state is unknown.
        """
        self.parser = ResponseParser(message.method, limits)
        self.phase = ConnectionPhase.WRITE
        self.answered = self._whole = False
        self._closing = message.closing
        self._failure = None
        self._sent_before = self.link.sent
        small = message.small()
        pushed = small is not None and self.link.push(small)
        if on_sent is not None:
            await on_sent()
        if pushed:
            self._whole = True
            if timeouts.read_s == math.inf:
                return await self._read_head(None, timeouts)
            with trio.fail_after(timeouts.read_s) as patience:
                return await self._read_head(patience, timeouts)
        return await self._exchange_large(message, timeouts, small)

    async def _read_head(
        self, patience: trio.CancelScope | None, timeouts: RequestTimeouts
    ) -> bytes:
        parser = self.parser
        assert parser is not None
        self.phase = ConnectionPhase.READ
        first = b""
        while parser.head is None:
            await self.link.wait()
            data = self.link.take()  # another one than before, if it has been closed
            if data is None:
                continue
            if not data:
                parser.feed_end()
            self.answered = True
            first = parser.feed(data)
            if patience is not None and self._whole:
                patience.deadline = trio.current_time() + timeouts.read_s
        return first

    async def _exchange_large(
        self, message: RequestMessage, timeouts: RequestTimeouts, small: bytes | None
    ) -> bytes:
        """Send what the kernel did not take at once, and read in another task."""
        parser = self.parser
        assert parser is not None
        first = b""
        unread: Exception | None = None
        async with trio.open_nursery() as nursery:
            patience = trio.CancelScope()  # starts to run when the request is sent
            nursery.start_soon(
                self._send, message, timeouts, small, patience, nursery.cancel_scope
            )
            try:
                with patience:
                    first = await self._read_head(patience, timeouts)
            except Exception as exc:
                unread = exc
                nursery.cancel_scope.cancel(reason="the response cannot be read")
            if parser.head is not None and parser.head.status >= 300:
                nursery.cancel_scope.cancel(reason="upstream answered early")
        if parser.head is not None:
            if self.link is CLOSED_LINK:  # while the tasks above were coming to an end
                raise trio.ClosedResourceError(CLOSED)
            return first
        if not self._whole:
            # Either task may be the first to notice that upstream closed.
            self.phase = ConnectionPhase.WRITE
        failure, self._failure = self._failure or unread or trio.TooSlowError(), None
        try:
            raise failure
        finally:
            del failure, unread  # a frame and its exception would hold each other

    async def _send(
        self,
        message: RequestMessage,
        timeouts: RequestTimeouts,
        small: bytes | None,
        patience: trio.CancelScope,
        both: trio.CancelScope,
    ) -> None:
        try:
            with trio.fail_after(timeouts.write_s) as progress:
                if small is not None:
                    await self.link.flush()
                else:
                    await self._send_pieces(message, timeouts, progress)
            self._whole = True
            patience.deadline = trio.current_time() + timeouts.read_s
        except (OSError, trio.BrokenResourceError) as exc:
            # Upstream closed; it may have said why before.
            self._failure = exc
            both.deadline = trio.current_time() + _REPLY_S
        except Exception as exc:
            self._failure = exc
            both.cancel(reason="the request cannot be sent")

    async def _send_pieces(
        self,
        message: RequestMessage,
        timeouts: RequestTimeouts,
        progress: trio.CancelScope,
    ) -> None:
        async def emit(piece: bytes) -> None:
            if not self.link.push(piece):
                await self.link.flush()
            progress.deadline = trio.current_time() + timeouts.write_s

        await message.write(emit)


# Between two looks at least: an expiry of nearly nothing must not keep a core busy.
_REST_S: Final = 1.0


@dataclass(slots=True)
class PoolCounters:
    """What has happened to connections so far."""

    connects: int = 0
    connect_failures: int = 0
    reuses: int = 0
    stale: int = 0
    expired: int = 0
    retries: int = 0
    aborts: int = 0


@dataclass(slots=True)
class TransportStatistics(PoolCounters):
    """What a transport holds now, and what it has done so far."""

    idle: int = 0
    live: int = 0
    connecting: int = 0
    dns_threads: int = 0


class Pool:
    """The connections of one transport."""

    __slots__ = ("_idle", "_limits", "_live", "_stacks", "closed", "counters")

    def __init__(self, limits: TransportLimits) -> None:
        self._limits = limits
        self._idle: OrderedDict[UpstreamConnection, None] = OrderedDict()
        self._stacks: dict[Origin, OrderedDict[UpstreamConnection, None]] = {}
        self._live: set[UpstreamConnection] = set()
        self.counters = PoolCounters()
        self.closed = False

    def __repr__(self) -> str:
        return f"<Pool idle={self.idle} live={self.live} closed={self.closed}>"

    @property
    def idle(self) -> int:
        """Connections that wait for their next request."""
        return len(self._idle)

    @property
    def live(self) -> int:
        """Connections that serve a request."""
        return len(self._live)

    def acquire(self, origin: Origin) -> UpstreamConnection | None:
        """Take the origin's warmest healthy connection, or None if there is none."""
        self._close_expired()
        while stack := self._stacks.get(origin):
            connection, _ = stack.popitem()
            self._forget_idle(connection)
            if connection.link.stale():
                self.counters.stale += 1
                connection.close()
                continue
            self.counters.reuses += 1
            self._live.add(connection)
            return connection
        return None

    def adopt(self, connection: UpstreamConnection) -> None:
        """Count a new connection as live."""
        self.counters.connects += 1
        self._live.add(connection)

    def release(self, connection: UpstreamConnection) -> None:
        """Take back a connection whose response has been read to its end."""
        self._live.discard(connection)
        connection.idle_since = trio.current_time()
        connection.served += 1
        self._idle[connection] = None
        self._stacks.setdefault(connection.origin, OrderedDict())[connection] = None
        self._close_expired()
        while len(self._idle) > self._limits.max_idle:
            self._close_oldest()

    def discard(self, connection: UpstreamConnection) -> None:
        """Close a live connection. Idempotent."""
        self._live.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close every connection, live ones too, and take back no more."""
        self.closed = True
        while self._idle:
            self._close_oldest()
        self.counters.aborts += len(self._live)
        for connection in tuple(self._live):
            self.discard(connection)

    async def reap(self) -> None:
        """Close idle connections as they expire, until cancelled.

        One that goes idle during the wait can't expire before it is over, so there is
        nothing to be woken for.
        """
        while True:
            now = trio.current_time()
            oldest = next(iter(self._idle), None)
            since = now if oldest is None else oldest.idle_since
            due = since + self._limits.keepalive_expiry_s
            await trio.sleep_until(max(due, now + _REST_S))
            self._close_expired()

    def _close_expired(self) -> None:
        expiry = trio.current_time() - self._limits.keepalive_expiry_s
        while self._idle:
            if next(iter(self._idle)).idle_since > expiry:
                return
            self.counters.expired += 1
            self._close_oldest()

    def _close_oldest(self) -> None:
        connection = next(iter(self._idle))
        del self._stacks[connection.origin][connection]
        self._forget_idle(connection)
        connection.close()

    def _forget_idle(self, connection: UpstreamConnection) -> None:
        del self._idle[connection]
        if not self._stacks[connection.origin]:
            del self._stacks[connection.origin]

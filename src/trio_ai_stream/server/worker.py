"""One worker: it accepts, counts what is live, and drains.

The order of a drain: no new connections; the application is told (`begin_drain`) and so
are HTTP/2 clients (GOAWAY); live exchanges go on for up to `drain_s`; then
`end_streams`, and `terminal_events_s` for the terminal events, less where nobody reads
them; then every connection is closed.
"""

from __future__ import annotations

import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from random import randint
from typing import Any, Final, Protocol, TypeVar, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.typing import AppWrapper

from trio_ai_stream.server.connection import Connection, HTTPProtocol, Tally
from trio_ai_stream.server.http1 import HTTP1
from trio_ai_stream.server.http2 import HTTP2
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.sockets import (
    ClientTransport,
    ExhaustedError,
    Listener,
    ListenerClosedError,
    Reserve,
    Turns,
)
from trio_ai_stream.server.tls import RecordBuffers, TLSTransport

log: Final = logging.getLogger("trio_ai_stream.server")

# Accepted in one go: few, so that workers which share a socket share its clients.
_BATCH: Final = 8
# Out of descriptors or memory: what ends gives some back; ask again this much later.
_EXHAUSTED_PAUSE_S: Final = 0.1
# From the end of the listening sockets to the order to drain, if one comes.
_ORDER_S: Final = 0.5
# One record for so long, however often it is so.
_EXHAUSTED_SAID_S: Final = 10.0
# Descriptors for clients that ask how the process is when it has run out of them.
_RESERVED: Final = 8
# So many connections are acted on in one turn of the loop.
_SLICE: Final = 100
# How often progress is looked for while terminal events go out.
_LOOK_S: Final = 0.05
# Trio would make a text of it for each task, and keep it.
_CONNECTION: Final = "trio_ai_stream.server.connection.Connection.run"
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n"
    b"retry-after: 1\r\nconnection: close\r\n\r\n"
)

T = TypeVar("T")


class Drainable(Protocol):
    """An application that can be drained; the calls come from the Trio thread."""

    def __len__(self) -> int:
        """Return how much lives, what no exchange of the worker carries included."""

    async def until_over(self) -> None:
        """Wait until nothing does."""

    def begin_drain(self) -> None:
        """Refuse what is new from now on, with 503; what is live goes on."""

    def end_streams(self) -> bool:
        """Let some live streams say their terminal event now, and end.

        Return whether there are more, to be told in another turn of the loop.
        """


class Shutdown:
    """What has been asked for: to end, to end everywhere, to end without waiting."""

    def __init__(self, *, alone: bool) -> None:
        """Make one; `alone` if no other process shares the listening sockets."""
        self.requested = trio.Event()
        self.skipped = trio.Event()
        # The supervisor itself is ending, so the listening sockets, which all workers
        # share, may be shut down.
        self.everywhere = trio.Event()
        self._alone = alone
        # What SIGHUP asks for, once the server listens, and who waits for it.
        self._read_again: Callable[[], None] | None = None
        self._reloads: list[Callable[[], object]] = []
        self._signalled = False

    def request(self, *, everywhere: bool = False) -> None:
        """Ask for the drain; idempotent."""
        self.requested.set()
        if everywhere or self._alone:
            self.everywhere.set()

    def skip(self) -> None:
        """Ask for the end of the drain."""
        self.request()
        self.skipped.set()

    def reload(self, done: Callable[[], object] = lambda: None) -> None:
        """Have what SIGHUP asks for done, then call `done`.

        In a server that is only starting, as soon as it listens: it may have read its
        settings before they changed.
        """
        self._reloads.append(done)
        self._reload_now()

    def reload_by(self, read_again: Callable[[], None]) -> None:
        """From now on `read_again` does what SIGHUP asks for, and has asked for."""
        self._read_again = read_again
        self._reload_now()

    def _reload_now(self) -> None:
        if self._read_again is None or not self._reloads:
            return
        reloads, self._reloads = self._reloads, []
        self._read_again()
        for done in reloads:
            done()

    async def follow(self, signals: AsyncIterator[int], *, patient: bool) -> None:
        """Drain on the first signal, skip the wait on the second.

        Signals are counted, not asking whether a drain is under way: a supervisor
        may have asked for it before a signal to the whole process group arrives here.

        :param patient: SIGTERM never skips. Hypercorn's parent repeats it to its other
            workers as soon as one has ended, and to all when it fails.
        """
        async for signum in signals:
            if signum == signal.SIGHUP:
                self.reload()
            elif not self._signalled:
                self._signalled = True
                self.request()
            elif signum == signal.SIGINT or not patient:
                self.skip()


async def first_of(*waits: Callable[[], object]) -> None:
    """Return when the first of the functions returns; the others are cancelled."""
    async with trio.open_nursery() as nursery:

        async def wait(one: Callable[..., object]) -> None:
            await one()  # type: ignore[misc]
            nursery.cancel_scope.cancel(reason="another wait is over")

        for one in waits:
            nursery.start_soon(wait, one)


class Worker:
    """The connections and exchanges of one worker."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        state: dict[str, Any],
        *,
        limits: Limits,
        drainable: Drainable,
        tally: Tally,
        shutdown: Shutdown,
    ) -> None:
        self.app = _direct(app)
        self.config = config
        self.state = state
        self.limits = limits
        self.drainable = drainable
        self.tally = tally
        self.shutdown = shutdown
        self.draining = False
        self.connections: dict[Connection, None] = {}  # a set, the oldest first
        self.tls: ssl.SSLContext | None = None
        self.reserve = Reserve(_RESERVED)
        self.turns = Turns()
        self._records = RecordBuffers()
        self._requests = 0
        self._most_requests = inf
        if config.max_requests is not None:
            jitter = randint(0, config.max_requests_jitter)  # noqa: S311 - no secret
            self._most_requests = config.max_requests + jitter
        self._listening = 0
        self._exhausted_said = -inf
        self.exchanges = 0  # the live ones
        self._quiet = trio.Event()

    async def run(
        self,
        listeners: Sequence[Listener],
        tls: ssl.SSLContext | None,
        started: Callable[[], None],
    ) -> None:
        """Accept until asked to end, then drain."""
        self.tls = tls
        self._listening = len(listeners)
        try:
            async with trio.open_nursery() as nursery:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, nursery)
                    started()
                    await self.shutdown.requested.wait()
                    accepting.cancel_scope.cancel(reason="draining")
                await self._drain(listeners)
                nursery.cancel_scope.deadline = (
                    trio.current_time() + self.limits.app_shutdown_s / 2
                )
        finally:
            self.reserve.close()

    async def _accept(self, listener: Listener, nursery: trio.Nursery) -> None:
        """Accept from one socket until it is shut down, whatever one client costs."""
        while True:
            await trio.lowlevel.wait_readable(listener.sock)
            try:
                self._accept_some(listener, nursery)
            except (ExhaustedError, MemoryError) as exc:
                self._exhausted(exc)
                await trio.sleep(_EXHAUSTED_PAUSE_S)
            except ListenerClosedError:
                break
        self._listening -= 1
        if not self._listening:
            # In a drain of all workers another may be first; the order ends this wait.
            with trio.move_on_after(_ORDER_S):
                await self.shutdown.requested.wait()
                return
            text = "every listening socket has been shut down elsewhere; draining"
            log.error(text, extra={"event": "listeners_closed"})
            self.shutdown.request()

    def _accept_some(self, listener: Listener, nursery: trio.Nursery) -> None:
        for _ in range(_BATCH):
            spare = False
            try:
                sock = listener.accept()
            except ExhaustedError as exc:
                self._exhausted(exc)
                spare = self.reserve.lend()
                if not spare:
                    raise
                try:
                    sock = listener.accept()
                except BaseException:
                    self.reserve.restore()
                    raise
            if sock is None:
                if spare:
                    self.reserve.restore()
                return
            self._admit(sock, nursery, secure=listener.secure, spare=spare)

    def _exhausted(self, exc: Exception) -> None:
        """Say, not more often than is read, that there is no room."""
        now = trio.current_time()
        if now >= self._exhausted_said + _EXHAUSTED_SAID_S:
            self._exhausted_said = now
            text, why = "cannot accept a connection: %s", str(exc)
            event = {"event": "accept_failed"}
            log.warning(text, why or "no memory is left", extra=event)

    def _admit(
        self, sock: socket.socket, nursery: trio.Nursery, *, secure: bool, spare: bool
    ) -> None:
        """Serve a client, or refuse one too many; counted in this very step."""
        connection: Connection | None = None
        try:
            full = len(self.connections) >= self.limits.connections
            if full and not (self.limits.newest_first and self._drop_oldest()):
                self.tally.interventions["connection_refused"] += 1
                _refuse(sock, b"" if secure else _FULL)
                return
            with suppress(OSError):  # gone before it was looked at
                transport = (
                    TLSTransport(sock, self.limits, self.turns, self.tls, self._records)
                    if secure and self.tls is not None
                    else ClientTransport(sock, self.limits, self.turns)
                )
                connection = Connection(self, transport, _make_protocol, spare)
                self.connections[connection] = None
                self.tally.connections_open += 1
                self.tally.connections_total += 1
                nursery.start_soon(connection.run, name=_CONNECTION)
        finally:
            if connection is None:
                sock.close()
                if spare:
                    self.reserve.restore()

    def _drop_oldest(self) -> bool:
        """End the oldest connection without a request that is complete, if any."""
        for connection in self.connections:
            if not connection.live:
                del self.connections[connection]
                self.tally.interventions["connection_refused"] += 1
                connection.abort()
                return True
        return False

    async def _drain(self, listeners: Sequence[Listener]) -> None:
        limits = self.limits
        self.draining = True
        event = {"event": "drain_began"}
        if live := max(self.exchanges, len(self.drainable)):
            text = "draining: %d live, for at most %g s; Ctrl-C again ends them"
            log.info(text, live, limits.drain_s, extra=event)
        else:
            log.info("draining: nothing is live", extra=event)
        self._contained(self.drainable.begin_drain)
        await self._each(lambda connection: connection.begin_drain())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_listening, listeners)
            with trio.move_on_after(limits.drain_s):
                await first_of(self._until_quiet, self.shutdown.skipped.wait)
            ends_at = trio.current_time() + limits.terminal_events_s
            if live := max(self.exchanges, len(self.drainable)):
                text = (
                    "the drain is over: %d live; streams are told, others are cut off"
                )
                log.info(text, live, extra={"event": "drain_over"})
                await self._end_streams()
                await self._each(Connection.end_drain)
                with trio.move_on_at(ends_at):
                    await first_of(self._until_quiet, self._until_nobody_reads)
            nursery.cancel_scope.cancel(reason="the drain is over")
        await self._each(lambda connection: connection.finish_drain())
        # Who still sends (credit of HTTP/2, say) to a socket that is closed is reset,
        # and loses what of the answer is on its way.
        with trio.move_on_at(ends_at):
            await self._until_nobody_reads(live=False)

    async def _end_streams(self) -> None:
        """Let the application tell its streams; others have a turn in between."""
        more: bool | None = True
        while more:
            more = self._contained(self.drainable.end_streams)
            await trio.lowlevel.checkpoint()

    async def _each(self, act: Callable[[Connection], None]) -> None:
        """Act on every connection; other tasks have a turn after each slice."""
        for number, connection in enumerate(list(self.connections), 1):
            if connection in self.connections:  # it may have ended meanwhile
                self._contained(partial(act, connection))
            if number % _SLICE == 0:
                await trio.lowlevel.checkpoint()

    def _contained(self, callback: Callable[[], T]) -> T | None:
        """Call what must not keep the drain from its end, nor others from it."""
        try:
            return callback()
        except Exception:
            self.tally.interventions["application_error"] += 1
            log.exception("a callback failed", extra={"event": "callback_error"})
            return None

    async def _stop_listening(self, listeners: Sequence[Listener]) -> None:
        """Refuse new clients, instead of letting them queue where nobody will look."""
        await self.shutdown.everywhere.wait()
        for listener in listeners:
            listener.shut_down()

    async def _until_nobody_reads(self, *, live: bool = True) -> None:
        """Wait until no live client has acknowledged anything for a while.

        Without live clients it waits for its caller's scope: what lives then is read at
        a side listener. Not `live`: the same of connections that end, and it is over at
        once when all is acknowledged.
        The while is counted in looks: a process that got no turn for as long has not
        looked, and what its clients have read meanwhile is not known to it.
        """
        seen, unchanged = await self._unread(live=live), 0
        while (live or any(seen.values())) and (
            unchanged * _LOOK_S < self.limits.terminal_events_stall_s
        ):
            await trio.sleep(_LOOK_S)
            now = await self._unread(live=live)
            unchanged = unchanged + 1 if now == seen != {} else 0
            seen = now

    async def _unread(self, *, live: bool) -> dict[Connection, int]:
        """Return what each client, live or not, was sent and has not acknowledged."""
        unread: dict[Connection, int] = {}

        def note(connection: Connection) -> None:
            if bool(connection.live) is live:
                unread[connection] = connection.transport.unacknowledged()

        await self._each(note)
        return unread

    async def _until_quiet(self) -> None:
        """Wait for the exchanges, and for what the application has besides."""
        while self.exchanges or len(self.drainable):
            await self.until_quiet()
            await self.drainable.until_over()

    async def until_quiet(self) -> None:
        """Wait until no exchange is live; there may be one when this returns."""
        if self.exchanges:
            if self._quiet.is_set():
                self._quiet = trio.Event()
            await self._quiet.wait()

    def exchange_begins(self) -> None:
        """Count an exchange in."""
        self.exchanges += 1
        self.tally.exchanges_live += 1
        self.tally.exchanges_total += 1
        self._requests += 1
        if self._requests > self._most_requests:
            self.shutdown.request()

    def connection_ends(self, connection: Connection) -> None:
        """Count a connection out; it is closed."""
        self.connections.pop(connection, None)
        self.tally.connections_open -= 1
        if connection.spare:
            self.reserve.restore()

    def exchange_ends(self) -> None:
        """Count an exchange out."""
        self.exchanges -= 1
        self.tally.exchanges_live -= 1
        if not self.exchanges:
            self._quiet.set()


def _direct(app: AppWrapper) -> AppWrapper:
    """Return what Hypercorn's wrapper of an ASGI application passes the call on to.

    Each live stream would hold the wrapper's frame, and each event pass through it.
    """
    if not isinstance(app, ASGIWrapper):
        return app
    inner = app.app

    def call(scope: Any, receive: Any, send: Any, *_: object) -> Any:
        return inner(scope, receive, send)

    return cast("AppWrapper", call)


def _make_protocol(connection: Connection, http2: bool) -> HTTPProtocol:
    return HTTP2(connection) if http2 else HTTP1(connection)


def _refuse(sock: socket.socket, answer: bytes) -> None:
    """Answer as far as that takes no waiting; the caller closes."""
    with suppress(OSError):
        sock.send(answer)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(65_536)  # closing with bytes unread would destroy the answer

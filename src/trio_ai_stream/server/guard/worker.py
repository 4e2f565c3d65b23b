"""One worker process: it accepts, counts what is live, and drains."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from random import randint
from typing import TYPE_CHECKING, Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper

from trio_ai_stream.server.drain import Shutdown, first_of
from trio_ai_stream.server.guard import records
from trio_ai_stream.server.guard.connection import Connection
from trio_ai_stream.server.guard.tls import TLSTransport
from trio_ai_stream.server.guard.transport import Transport
from trio_ai_stream.server.sockets import (
    ExhaustedError,
    Listener,
    ListenerClosedError,
    Reserve,
)

if TYPE_CHECKING:
    from trio_ai_stream.server.guard.serving import Guard

# Accepted in one go: few, so that workers which share a socket share its clients.
_BATCH: Final = 8
# Out of descriptors or memory: what ends gives some back; ask again this much later.
_EXHAUSTED_PAUSE_S: Final = 0.1
# One record for so long, however often it is so.
_EXHAUSTED_SAID_S: Final = 10.0
# Descriptors for clients that ask how the process is when it has run out of them.
_KEPT_BACK: Final = 8
# How often progress is looked for while terminal events go out.
_LOOK_S: Final = 0.05
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n"
    b"retry-after: 1\r\nconnection: close\r\n\r\n"
)


class Worker(WorkerContext):
    """Hypercorn's worker context, with the connections and exchanges it stands for."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        state: dict[str, Any],
        *,
        guard: Guard,
        shutdown: Shutdown,
    ) -> None:
        most = config.max_requests
        if most is not None:
            most += randint(0, config.max_requests_jitter)  # noqa: S311 - not a secret
        super().__init__(most)
        self.app = app
        self.config = config
        self.state = state
        self.limits = guard.limits
        self.drainable = guard.drainable
        self.tally = guard.tally
        self.shutdown = shutdown
        self.draining = False
        self.connections: set[Connection] = set()
        self.tls: ssl.SSLContext | None = None
        self.reserve = Reserve(_KEPT_BACK)
        self._listening = 0
        self._exhausted_said = -inf
        self._live = 0
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
                    trio.current_time() + self.limits.farewell_s / 2
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
        if not self._listening and not self.shutdown.requested.is_set():
            records.listeners_closed()
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
            records.accept_failed(exc)

    def _admit(
        self, sock: socket.socket, nursery: trio.Nursery, *, secure: bool, spare: bool
    ) -> None:
        """Serve a client, or refuse one too many; counted in this very step."""
        connection: Connection | None = None
        try:
            if len(self.connections) >= self.limits.connections:
                self.tally.interventions["connection_refused"] += 1
                _refuse(sock, b"" if secure else _FULL)
                return
            make = (
                partial(TLSTransport, sock, self.limits, context=self.tls)
                if secure and self.tls is not None
                else partial(Transport, sock, self.limits)
            )
            with suppress(OSError):  # gone before it was looked at
                connection = Connection(self, make, nursery, spare=spare)
                self.connections.add(connection)
                nursery.start_soon(self._serve, connection)
        finally:
            if connection is None:
                sock.close()
                if spare:
                    self.reserve.restore()

    async def _serve(self, connection: Connection) -> None:
        self.tally.connections_open += 1
        self.tally.connections_total += 1
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)
            self.tally.connections_open -= 1
            if connection.spare:
                self.reserve.restore()

    async def _drain(self, listeners: Sequence[Listener]) -> None:
        limits = self.limits
        self.draining = True
        await self.terminated.set()
        records.drain_began(self._live, limits.drain_s)
        self._contained(self.drainable.begin_drain)
        for connection in list(self.connections):
            self._contained(connection.begin_drain)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deafen, listeners)
            with trio.move_on_after(limits.drain_s):
                await first_of(self._until_quiet, self.shutdown.skipped.wait)
            if self._live:
                records.drain_over(self._live)
                self._contained(self.drainable.end_streams)
                with trio.move_on_after(limits.last_words_s):
                    await first_of(self._until_quiet, self._until_nobody_reads)
            nursery.cancel_scope.cancel(reason="the drain is over")
        for connection in list(self.connections):
            if connection.live:
                self._contained(connection.abort)
            self._contained(connection.finish_drain)

    def _contained(self, callback: Callable[[], None]) -> None:
        """Call what must not keep the drain from its end, nor others from it."""
        try:
            callback()
        except Exception as exc:
            self.tally.interventions["application_error"] += 1
            records.callback_failed(exc)

    async def _deafen(self, listeners: Sequence[Listener]) -> None:
        """Refuse new clients, instead of letting them queue where nobody will look."""
        await self.shutdown.everywhere.wait()
        for listener in listeners:
            listener.shut_down()

    async def _until_nobody_reads(self) -> None:
        """Wait until those who are still live have acknowledged nothing for a while."""
        seen, since = self._unread(), trio.current_time()
        while trio.current_time() < since + self.limits.last_words_stall_s:
            await trio.sleep(_LOOK_S)
            now = self._unread()
            if now != seen:
                seen, since = now, trio.current_time()

    def _unread(self) -> dict[Connection, int]:
        """Return what each live client has been sent and has not acknowledged."""
        return {
            connection: connection.transport.unacknowledged()
            for connection in self.connections
            if connection.live
        }

    async def _until_quiet(self) -> None:
        while self._live:
            self._quiet = trio.Event()
            await self._quiet.wait()

    def exchange_begins(self) -> None:
        """Count an exchange in."""
        self._live += 1
        self.tally.exchanges_live += 1
        self.tally.exchanges_total += 1
        self.requests += 1
        if self.max_requests is not None and self.requests > self.max_requests:
            self.shutdown.request()

    def exchange_ends(self) -> None:
        """Count an exchange out."""
        self._live -= 1
        self.tally.exchanges_live -= 1
        if not self._live:
            self._quiet.set()


def _refuse(sock: socket.socket, answer: bytes) -> None:
    """Answer as far as that takes no waiting; the caller closes."""
    with suppress(OSError):
        sock.send(answer)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(65_536)  # closing with bytes unread would destroy the answer

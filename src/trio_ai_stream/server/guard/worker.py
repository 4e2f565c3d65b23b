"""One worker process: it accepts, counts what is live, and drains."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
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

if TYPE_CHECKING:
    from trio_ai_stream.server.guard.serving import Guard

# Accepted in one go: few, so that workers which share a socket share its clients.
_BATCH: Final = 8
# Out of descriptors or memory: what ends gives some back; ask again this much later.
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_EXHAUSTED_PAUSE_S: Final = 0.1
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
        self._live = 0
        self._quiet = trio.Event()

    async def run(
        self,
        listeners: list[tuple[socket.socket, ssl.SSLContext | None]],
        started: Callable[[], None],
    ) -> None:
        """Accept until asked to end, then drain."""
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as accepting:
                for sock, context in listeners:
                    accepting.start_soon(self._accept, sock, context, nursery)
                started()
                await self.shutdown.requested.wait()
                accepting.cancel_scope.cancel(reason="draining")
            await self._drain(listeners)
            nursery.cancel_scope.deadline = (
                trio.current_time() + self.limits.farewell_s / 2
            )

    async def _accept(
        self,
        listener: socket.socket,
        context: ssl.SSLContext | None,
        nursery: trio.Nursery,
    ) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(_BATCH):
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    break
                except OSError as exc:
                    if exc.errno in _EXHAUSTED:
                        records.accept_failed(exc)
                        await trio.sleep(_EXHAUSTED_PAUSE_S)
                    break
                self._admit(sock, context, nursery)

    def _admit(
        self,
        sock: socket.socket,
        context: ssl.SSLContext | None,
        nursery: trio.Nursery,
    ) -> None:
        sock.setblocking(False)
        if len(self.connections) >= self.limits.connections:
            self.tally.interventions["connection_refused"] += 1
            _refuse(sock, b"" if context else _FULL)
            return
        make = (
            partial(Transport, sock, self.limits)
            if context is None
            else partial(TLSTransport, sock, self.limits, context=context)
        )
        try:
            connection = Connection(self, make, nursery)
        except OSError:
            sock.close()  # gone before it was looked at
            return
        nursery.start_soon(self._serve, connection)

    async def _serve(self, connection: Connection) -> None:
        self.connections.add(connection)
        self.tally.connections_open += 1
        self.tally.connections_total += 1
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)
            self.tally.connections_open -= 1

    async def _drain(
        self, listeners: list[tuple[socket.socket, ssl.SSLContext | None]]
    ) -> None:
        limits = self.limits
        self.draining = True
        await self.terminated.set()
        records.drain_began(self._live, limits.drain_s)
        self.drainable.begin_drain()
        for connection in list(self.connections):
            connection.begin_drain()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deafen, listeners)
            with trio.move_on_after(limits.drain_s):
                await first_of(self._until_quiet, self.shutdown.skipped.wait)
            if self._live:
                records.drain_over(self._live)
                self.drainable.end_streams()
                with trio.move_on_after(limits.last_words_s):
                    await first_of(self._until_quiet, self._until_nobody_reads)
            nursery.cancel_scope.cancel(reason="the drain is over")
        for connection in list(self.connections):
            if connection.live:
                connection.abort()
            connection.finish_drain()

    async def _deafen(
        self, listeners: list[tuple[socket.socket, ssl.SSLContext | None]]
    ) -> None:
        """Refuse new clients, instead of letting them queue where nobody will look."""
        await self.shutdown.everywhere.wait()
        for sock, _ in listeners:
            with suppress(OSError):  # another worker was first
                sock.shutdown(socket.SHUT_RDWR)

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
    """Answer as far as that takes no waiting, and close."""
    try:
        sock.send(answer)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    finally:
        sock.close()

"""A network in memory: bounded or lockstep pipes, faults on request, TLS over them.

Trio's memory streams hold any number of bytes and cannot be reset. A sweep needs
backpressure, faults from outside between two steps, and to know which connections are
still open. Everything here but `connect`, `send_all` and `receive_some` is a plain
function, so that a cause can call it.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final

import trio

from trio_sweep import internals

CAPACITY: Final = 16_384  # bytes: a small socket buffer; a send beyond it waits
LOCKSTEP: Final = 0  # a send waits until its bytes have been received
# The client ends of this run's connections, and who dialled them.
DIALLED: ContextVar[list[tuple[MemoryStream, internals.Task]]] = ContextVar("dialled")


class _Pipe:
    """One direction of a connection."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._data = bytearray()
        self._change = trio.lowlevel.ParkingLot()
        self.ended = False  # by its writer: what is in flight still arrives
        self.cut = False  # ended from outside: its writer finds it broken
        self.broken = False  # what is in flight is lost
        self.unread = False  # its reader has closed

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.check_writer()
        while data:
            self.check_writer()
            room = (self._capacity or len(data)) - len(self._data)
            if self._capacity == LOCKSTEP and self._data:
                room = 0
            if room > 0:
                self._data += data[:room]
                data = data[room:]
                self._change.unpark_all()
            else:
                await self._change.park()
        while self._capacity == LOCKSTEP and self._data:
            await self._change.park()
            self.check_writer()

    async def receive(self, most: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.unread:
                raise trio.ClosedResourceError("this end was closed")
            if self.broken:
                raise trio.BrokenResourceError("the connection was reset")
            if self._data:
                data = bytes(self._data[:most])
                del self._data[:most]
                self._change.unpark_all()
                return data
            if self.ended or self.cut:
                return b""
            await self._change.park()

    @property
    def readable(self) -> bool:
        return bool(self._data) or self.ended or self.cut or self.broken

    def end(self) -> None:
        self.ended = True
        self._change.unpark_all()

    def end_from_outside(self) -> None:
        self.cut = True
        self._change.unpark_all()

    def break_off(self) -> None:
        self._data.clear()
        self.broken = True
        self._change.unpark_all()

    def leave(self) -> None:
        self._data.clear()
        self.unread = True
        self._change.unpark_all()

    def check_writer(self) -> None:
        if self.ended:
            raise trio.ClosedResourceError("this end was closed for sending")
        if self.cut or self.broken or self.unread:
            raise trio.BrokenResourceError("the other end is gone")


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection."""

    def __init__(self, out: _Pipe, into: _Pipe) -> None:
        self._out = out
        self._into = into
        self._busy: set[str] = set()
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything; wait while the pipe is full.

        :raises trio.BusyResourceError: when another task is sending.
        """
        with self._exclusively("sending"):
            await self._out.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: a full pipe makes `send_all` wait."""
        with self._exclusively("sending"):
            await trio.lowlevel.checkpoint()
            self._out.check_writer()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has arrived; b"" once the other end has closed.

        :raises trio.BusyResourceError: when another task is receiving.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"expected max_bytes of at least 1; got {max_bytes}")
        with self._exclusively("receiving"):
            return await self._into.receive(max_bytes or 65_536)

    async def send_eof(self) -> None:
        """Close for sending; what the other end sends still arrives."""
        await trio.lowlevel.checkpoint()
        self._out.end()

    def close(self) -> None:
        """Close at once; whoever waits here is woken. Idempotent."""
        self.closed = True
        self._out.end()
        self._into.leave()

    async def aclose(self) -> None:
        """Close; a checkpoint, also when it is cancelled."""
        self.close()
        await trio.lowlevel.checkpoint()

    def setsockopt(self, *_: object) -> None:
        """Accept any option of a socket: clients set TCP_NODELAY."""

    @property
    def socket(self) -> MemorySocket:
        """What libraries ask of `trio.SocketStream.socket`."""
        return MemorySocket(self)

    @contextlib.contextmanager
    def _exclusively(self, doing: str) -> Iterator[None]:
        if doing in self._busy:
            raise trio.BusyResourceError(f"another task is {doing}")
        self._busy.add(doing)
        try:
            yield
        finally:
            self._busy.discard(doing)


class MemorySocket:
    """The questions that libraries ask a socket: is it readable, and whose is it."""

    family = socket.AF_INET

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self.setsockopt = stream.setsockopt

    def is_readable(self) -> bool:
        """Tell whether a receive would return, or raise, at once."""
        return self._stream._into.readable

    def getsockname(self) -> tuple[str, int]:
        """Return the address of this end: the same for all."""
        return "127.0.0.1", 80

    getpeername = getsockname


# httpcore asks isinstance before it looks whether an idle connection has data.
trio.SocketStream.register(MemoryStream)


class MemoryConnection:
    """Both ends of a connection; `client` dialled, `server` was accepted."""

    def __init__(self, capacity: int) -> None:
        self._up, self._down = _Pipe(capacity), _Pipe(capacity)
        self.client = MemoryStream(self._up, self._down)
        self.server = MemoryStream(self._down, self._up)

    def reset(self) -> None:
        """Break the connection (RST): what is in flight is lost."""
        self._up.break_off()
        self._down.break_off()

    def end_server(self) -> None:
        """Let the server's direction end (FIN): what is in flight still arrives."""
        self._down.end_from_outside()

    def end_client(self) -> None:
        """Let the client's direction end (FIN)."""
        self._up.end_from_outside()


class MemoryListener(trio.abc.Listener[MemoryStream]):
    """Accepts connections that are dialled in this process."""

    def __init__(self, capacity: int = CAPACITY, connect_s: float = 0.0) -> None:
        self._capacity = capacity
        self._accept, self._queue = trio.open_memory_channel[MemoryStream](
            float("inf")
        )[::-1]
        self.connect_s = connect_s
        self.refusing = False
        self.connections: list[MemoryConnection] = []

    async def connect(self, *_: object, **__: object) -> MemoryStream:
        """Dial, which takes `connect_s`; host, port and the like are ignored.

        :raises ConnectionRefusedError: when refusing, or no longer listening.
        """
        await trio.sleep(self.connect_s)
        connection = MemoryConnection(self._capacity)
        if self.refusing:
            raise ConnectionRefusedError("dials are refused here")
        try:
            self._queue.send_nowait(connection.server)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ConnectionRefusedError("nobody accepts here") from None
        self.connections.append(connection)
        if (dialled := DIALLED.get(None)) is not None:
            dialled.append((connection.client, trio.lowlevel.current_task()))
        return connection.client

    async def accept(self) -> MemoryStream:
        """Wait for the next connection."""
        return await self._accept.receive()

    def reset(self) -> bool:
        """Reset every connection; False if there is none to reset."""
        return self._each(MemoryConnection.reset)

    def half_close(self) -> bool:
        """Let the server's direction of every connection end."""
        return self._each(MemoryConnection.end_server)

    def refuse(self) -> bool:
        """Refuse all dials from now on."""
        before, self.refusing = self.refusing, True
        return not before

    @property
    def open(self) -> int:
        """How many client ends are open."""
        return sum(not one.client.closed for one in self.connections)

    async def aclose(self) -> None:
        """Stop listening."""
        self._queue.close()
        self._accept.close()
        await trio.lowlevel.checkpoint()

    @contextlib.contextmanager
    def as_tcp(self) -> Iterator[None]:
        """Let `trio.open_tcp_stream` dial this listener, whatever the host."""
        before: Any = trio.open_tcp_stream
        trio.open_tcp_stream = self.connect  # type: ignore[assignment]
        try:
            yield
        finally:
            trio.open_tcp_stream = before

    def _each(self, act: Callable[[MemoryConnection], None]) -> bool:
        living = [one for one in self.connections if not one.client.closed]
        for one in living:
            act(one)
        return bool(living)


@contextlib.asynccontextmanager
async def memory_listener(
    handler: Callable[[Any], Awaitable[object]],
    *,
    capacity: int = CAPACITY,
    connect_s: float = 0.0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[MemoryListener]:
    """Serve `handler` in memory: it gets the server's end, over TLS if `tls` is given.

    The end is closed when the handler ends. A handler that fails because its peer went
    away ends quietly; any other error is the server's own, and is raised.
    """
    listener = MemoryListener(capacity, connect_s)

    async def serve(stream: MemoryStream) -> None:
        end: Any = stream
        if tls is not None:
            end = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            await handler(end)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            stream.close()

    async with trio.open_nursery() as nursery:
        serving = functools.partial(trio.serve_listeners, serve, [listener])
        await nursery.start(serving, name="listener")
        try:
            yield listener
        finally:
            nursery.cancel_scope.cancel(reason="the listener is closed")

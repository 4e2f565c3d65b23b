"""One upstream connection in memory: bounded, closed by a plain call, breakable.

Trio's memory streams hold any number of bytes and cannot be reset; a sweep needs
backpressure towards upstream, faults from outside between two steps, and a note of what
was sent when. Ticks are boundaries of the run, from whoever counts them.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from tests.sweep.scenario import TARGET

Handle = Callable[[trio.abc.Stream], Awaitable[None]]
CAPACITY: Final = 16_384  # a small socket buffer: a write beyond it waits
_REQUEST_ID: Final = re.compile(rb"\r\nx-request-id: ([^\r\n]+)", re.IGNORECASE)


class Pipe:
    """One direction of a connection."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._change = trio.lowlevel.ParkingLot()
        self.ended = False  # what is in flight still arrives
        self.cut = False  # ended from outside: its writer finds it broken
        self.broken = False  # nothing in flight arrives
        self.unread = False  # the reader is gone

    async def send(self, data: bytes) -> None:
        """Hand over all of `data`; wait while the pipe is full."""
        self._check_open()
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            if len(self._data) < CAPACITY:
                self.put(data)
                return
            await self._change.park()

    def _check_open(self) -> None:
        if self.ended and not self.cut:
            raise trio.ClosedResourceError("this end was closed")
        if self.cut or self.broken or self.unread:
            raise trio.BrokenResourceError("the other end is gone")

    async def receive(self, most: int) -> bytes:
        """Return what has arrived; b"" at the end."""
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
            if self.ended:
                return b""
            await self._change.park()

    def put(self, data: bytes) -> None:
        """Let `data` arrive, however full the pipe is."""
        self._data += data
        self._change.unpark_all()

    def end(self) -> None:
        """Close from the writer's side. Idempotent."""
        self.ended = True
        self._change.unpark_all()

    def drop(self, *, reader_left: bool = False) -> None:
        """Break the pipe, or let its reader leave; what is in flight is lost."""
        self._data.clear()
        if reader_left:
            self.unread = True
        else:
            self.broken = True
        self._change.unpark_all()


class End(trio.abc.Stream):
    """One end of a connection, with a plain `close`."""

    def __init__(
        self, out: Pipe, into: Pipe, note: Callable[[bytes], None] | None = None
    ) -> None:
        self._out = out
        self._into = into
        self._note = note
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything; bytes count as sent once the pipe has them."""
        await self._out.send(bytes(data))
        if self._note is not None:
            self._note(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: a full pipe makes `send_all` wait."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has arrived; b"" once the other end has closed."""
        return await self._into.receive(max_bytes or CAPACITY)

    def close(self) -> None:
        """Close both directions at once; whoever waits here is woken. Idempotent."""
        self.closed = True
        self._out.end()
        self._into.drop(reader_left=True)

    async def aclose(self) -> None:
        """Close; a checkpoint, as Trio's contract has it."""
        self.close()
        await trio.lowlevel.checkpoint()


class Wire(abc.ABC):
    """A connection from the server to upstream, and a note of what went through it."""

    far: trio.abc.Stream  # upstream's end

    def __init__(self, tick: Callable[[], int]) -> None:
        self._tick = tick
        self.sends: list[tuple[int, str]] = []  # (tick, whose request)
        self.owner = ""
        self.requests = 0  # of the swept stream; others may follow
        self.answered = b""  # upstream's bytes of the current response

    @property
    @abc.abstractmethod
    def carrier(self) -> object:
        """What a link of the server's is made of."""

    @property
    @abc.abstractmethod
    def open(self) -> bool:
        """Whether the server holds its end."""

    @abc.abstractmethod
    def end(self) -> None:
        """Upstream closes (FIN): what is in flight arrives, nothing more is read."""

    @abc.abstractmethod
    async def serve(self, handle: Handle) -> None:
        """Let `handle` be upstream."""

    def sent(self, data: bytes) -> None:
        """Note what the server says."""
        if found := _REQUEST_ID.search(data):
            self.owner = found[1].decode("ascii")
            self.answered = b""
            self.requests += self.owner == TARGET
        self.sends.append((self._tick(), self.owner))

    def received(self, data: bytes) -> None:
        """Note what upstream says."""
        self.answered += data


class MemoryWire(Wire):
    """A connection in memory, into which faults can be put from outside."""

    def __init__(self, tick: Callable[[], int]) -> None:
        super().__init__(tick)
        self._up = Pipe()
        self._down = Pipe()
        self.near = End(self._up, self._down, self.sent)
        self.far = End(self._down, self._up, self.received)

    @property
    def carrier(self) -> object:
        return self.near

    @property
    def open(self) -> bool:
        return not self.near.closed

    async def serve(self, handle: Handle) -> None:
        await handle(self.far)

    def end(self) -> None:
        self._down.cut = True
        self._down.end()
        self._up.drop()

    def reset(self) -> None:
        """Upstream resets: what is in flight is lost (RST)."""
        self._down.drop()
        self._up.drop()

    @property
    def answering(self) -> bool:
        """Whether upstream is in the midst of a stream."""
        streaming = b"text/event-stream" in self.answered and not self._down.ended
        return streaming and not self.answered.endswith(b"0\r\n\r\n")

    def interject(self, event: bytes) -> None:
        """Let upstream say one more event."""
        self._down.put(b"%x\r\n%b\r\n" % (len(event), event))

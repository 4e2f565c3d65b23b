"""A client's socket: writes that never block the order of bytes, waits that end.

Rule 1: a write is synchronous. `push` gives the kernel what it takes at once and keeps
the rest in order, so frames of several tasks never interleave and no lock is needed.
Rule 2: whoever has pushed then waits in `drained`, which is where backpressure is felt.
It may be cancelled at any time without harm: what was pushed stays queued, whole.
Rule 3: if the peer acknowledges nothing for `write_stall_s`, the connection is aborted.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from trio_ai_stream.server.limits import Limits

# Small enough that what one client sends at once, all control frames, is worked off in
# some tens of milliseconds.
RECEIVE_BYTES: Final = 16_384
_SIOCOUTQ: Final = 0x5411  # linux/sockios.h: bytes not yet acknowledged by the peer
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Transport:
    """One accepted TCP (or Unix) connection."""

    alpn: str | None = None
    tls = False

    def __init__(
        self, sock: socket.socket, limits: Limits, on_broken: Callable[[], None]
    ) -> None:
        self.sock = sock
        self.limits = limits
        self.on_broken = on_broken
        self.pending = bytearray()
        self.broken = False
        self.stalled = False
        self.overflowed = False
        self._flushing: trio.Lock | None = None
        self._lent = 0
        self._fresh = True
        self.family = sock.family  # asked once: each time it is made an enum's member
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            _tune(sock, limits)

    async def handshake(self) -> None:
        """Do what must be done before the first byte of HTTP: for TCP nothing."""

    def push(self, data: bytes) -> None:
        """Write `data`, or queue what the kernel won't take now; never blocks."""
        if self.broken:
            return
        if self.pending:
            self.pending += data
            if len(self.pending) > self.limits.pending_bytes + len(data):
                self.overflowed = True
                self._break()
            return
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as exc:
            self._fail(exc)
            return
        if sent < len(data):
            self.pending += memoryview(data)[sent:]

    async def breathe(self) -> None:
        """Wait until all that was pushed is with the kernel; let others run sometimes.

        A send that goes through at once costs no scheduler pass; every sixteenth gives
        the other tasks their turn, so a tight loop of sends cannot starve them.
        """
        if self.pending:
            await self.drained()
        elif self._lent < 15:
            self._lent += 1
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._lent = 0
            await trio.lowlevel.checkpoint()

    async def drained(self) -> None:
        """Wait until nothing is pending, or the connection is broken.

        Cancellation: safe; what is pending stays queued in order.
        """
        if self._flushing is None:
            self._flushing = trio.Lock()
        async with self._flushing:
            while self.pending and not self.broken:
                await self._wait_writable()
                self._flush()

    def _flush(self) -> None:
        try:
            sent = self.sock.send(self.pending)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._fail(exc)
            return
        del self.pending[:sent]

    async def _wait_writable(self) -> None:
        """Wait for room in the kernel; a peer that acknowledges nothing is cut off."""
        while not self.broken:
            before = self.unacknowledged()
            with trio.move_on_after(self.limits.write_stall_s) as scope:
                try:
                    await trio.lowlevel.wait_writable(self.sock)
                except trio.ClosedResourceError:
                    return
            if not scope.cancelled_caught:
                return
            if not self.unacknowledged() < before:
                self.stalled = True
                self._break()

    def unacknowledged(self) -> int:
        """Return the bytes that the peer has not acknowledged; 0 if unknown."""
        try:
            raw = fcntl.ioctl(self.sock.fileno(), _SIOCOUTQ, b"\0\0\0\0")
        except (OSError, ValueError):
            return 0
        return int(struct.unpack("i", raw)[0])

    async def receive(self) -> bytes:
        """Return what has arrived, `b""` at the end or after a failure.

        The first call looks before it waits: by the time that a connection is served,
        its request is mostly there.
        """
        while not self.broken:
            try:
                if self._fresh:
                    self._fresh = False
                else:
                    await trio.lowlevel.wait_readable(self.sock)
                return self.sock.recv(RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            except trio.ClosedResourceError:
                break
            except OSError as exc:
                self._fail(exc)
        return b""

    async def hung_up(self) -> None:
        """Wait, without reading, until the peer has ended or reset the connection.

        Only Linux can say so while bytes are unread; elsewhere this never returns.
        """
        if not hasattr(select, "EPOLLRDHUP"):
            await trio.sleep_forever()
        if self.broken:
            return
        with select.epoll() as poller:
            poller.register(self.sock, select.EPOLLRDHUP)
            await trio.lowlevel.wait_readable(poller.fileno())

    def _fail(self, exc: OSError) -> None:
        # TCP_USER_TIMEOUT: the kernel itself has found that nothing is acknowledged.
        self.stalled = self.stalled or exc.errno == errno.ETIMEDOUT
        self._break()

    def _break(self) -> None:
        if not self.broken:
            self.broken = True
            self.pending.clear()
            self.on_broken()

    def finish_writing(self) -> None:
        """Tell the peer that no more bytes will come."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    async def linger(self) -> None:
        """End politely: flush, say so, and drop what still comes; bounded in time."""
        with trio.move_on_after(self.limits.linger_s):
            await self.drained()
            self.finish_writing()
            dropped = 0
            while dropped < self.limits.discard_bytes and not self.broken:
                data = await self.receive()
                if not data:
                    break
                dropped += len(data)

    def abort(self) -> None:
        """Close at once with a reset; nothing more is sent."""
        self.broken = True
        self.pending.clear()
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.close()

    def close(self) -> None:
        """Give the descriptor back; idempotent. Tasks that wait on it are woken."""
        self.broken = True
        if self.sock.fileno() != -1:
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()


def _tune(sock: socket.socket, limits: Limits) -> None:
    """Set what the bounds need of the kernel, as far as it knows the option."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (
        ("TCP_NOTSENT_LOWAT", limits.unsent_bytes),
        # A peer that has vanished never fills the buffer with heartbeats; the kernel
        # would retransmit them for a quarter of an hour.
        ("TCP_USER_TIMEOUT", int(limits.write_stall_s * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

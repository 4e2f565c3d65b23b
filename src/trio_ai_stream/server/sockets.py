"""The sockets: those that listen, and those of the clients that were accepted."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

import trio
from hypercorn.config import Config, Sockets

from trio_ai_stream.server.limits import Limits

# Out of descriptors or memory: what ends gives some back.
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
# SD_LISTEN_FDS_START of sd_listen_fds(3).
_FIRST_ACTIVATED: Final = 3
# The listener itself is no more: closed, or shut down by a process that shares it.
_DEAD: Final = {errno.EINVAL, errno.EBADF, errno.ENOTSOCK}
# Small enough that what one client sends at once, all control frames, is worked off in
# some tens of milliseconds.
RECEIVE_BYTES: Final = 16_384
_SIOCOUTQ: Final = 0x5411  # linux/sockios.h: bytes not yet acknowledged by the peer
_NO_BOUND: Final = 2**31 - 1
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
# So many sends that go through at once, then the other tasks get their turn.
_SENDS_A_TURN: Final = 16
# Reads that may follow each other so closely, and how closely. What a read sets off is
# some 100 microseconds of work: the end of a stream, or the begin of a request.
READS_AT_MOST: Final = 50
READS_WINDOW_S: Final = 0.005


class ListenerClosedError(Exception):
    """Nobody can be accepted from this socket any more."""


class ExhaustedError(Exception):
    """The process has no room for another connection now; the message says why."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket.

    `secure`: TLS is spoken on it. `shared`: it was given to this process by another,
    which goes on accepting from it (systemd, `fd://`), so it is never shut down.
    """

    sock: socket.socket
    secure: bool
    shared: bool = False

    def accept(self) -> socket.socket | None:
        """Return the next client's socket, not blocking; None if there is none now.

        :raises ListenerClosedError: there will never be one.
        :raises ExhaustedError: no descriptor or no memory is left.
        """
        try:
            sock, _ = self.sock.accept()
        except MemoryError as exc:
            raise ExhaustedError("no memory is left") from exc
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                raise ExhaustedError(str(exc)) from exc
            if exc.errno in _DEAD:
                raise ListenerClosedError from exc
            # None waits, or the one that did has gone (accept(2), "Error handling").
            return None
        sock.setblocking(False)
        return sock

    def shut_down(self) -> None:
        """Refuse new clients, in every process that has the socket."""
        if not self.shared:
            with suppress(OSError):  # another worker was first
                self.sock.shutdown(socket.SHUT_RDWR)


def address_text(host: str, port: int) -> str:
    """Return an address as a URL has it: one of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class ActivationError(ValueError):
    """What the service manager has handed over cannot be listened on."""


def activated(environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """Return the service manager's sockets as Hypercorn's binds (sd_listen_fds(3)).

    Without one the list is empty. The variables are taken out of `environ`: they are
    for this process alone.

    :raises ActivationError: naming what was expected and what came.
    """
    number, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        return []
    if not number.isdecimal():
        raise ActivationError(f"LISTEN_FDS: expected a number, got {number!r}")
    descriptors = range(_FIRST_ACTIVATED, _FIRST_ACTIVATED + int(number))
    for descriptor in descriptors:
        try:
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            listens = 0
        if not listens:
            raise ActivationError(
                f"LISTEN_FDS: expected listening stream sockets (Accept=no), got"
                f" something else as descriptor {descriptor}"
            )
        os.set_inheritable(descriptor, False)
    return [f"fd://{descriptor}" for descriptor in descriptors]


class Reserve:
    """Descriptors kept back, so that a process without any can still be asked."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[int] = []
        self.restore()

    def lend(self) -> bool:
        """Free one descriptor; False if none is left."""
        if not self._held:
            return False
        os.close(self._held.pop())
        return True

    def restore(self) -> None:
        """Keep back again what was lent, as far as there is any."""
        with suppress(OSError):
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Give all of them back."""
        while self.lend():
            pass


def allow_descriptors(wanted: int) -> int:
    """Raise the soft limit of open files as far as the hard one lets us; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        with suppress(OSError, ValueError):  # a container may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
    return soft


def listeners_of(config: Config, sockets: Sockets) -> list[Listener]:
    """Return the sockets that Hypercorn has made, with whose they are."""
    secure = _marked(sockets.secure_sockets, config.bind, secure=True)
    binds = config.insecure_bind if config.ssl_enabled else config.bind
    return secure + _marked(sockets.insecure_sockets, binds, secure=False)


def _marked(
    sockets: list[socket.socket], binds: Iterable[str], *, secure: bool
) -> list[Listener]:
    return [
        Listener(sock, secure, shared=bind.startswith("fd://"))
        for sock, bind in zip(sockets, binds, strict=False)
    ]


@dataclass(slots=True, eq=False)
class Turns:
    """Lets `at_most` readers pass in each `window_s`; the others stand in line.

    Thousands of clients that leave in one moment, as behind a proxy that restarts,
    would else all be read, and their streams ended, in one turn of the loop, for which
    every other stream would wait. Those in line pass in their order, `at_most` in a
    turn. Who is not in a crowd pays for a look at the clock.
    """

    at_most: int = READS_AT_MOST
    window_s: float = READS_WINDOW_S
    _until: float = 0.0
    _left: int = 0
    _line: dict[trio.lowlevel.Task, None] = field(default_factory=dict)
    _waking: bool = False

    def __len__(self) -> int:
        return len(self._line)

    def crowded(self) -> bool:
        """Count one reader; whether it has to stand in line."""
        now = trio.current_time()
        if now >= self._until:
            self._until = now + self.window_s
            self._left = self.at_most
        self._left -= 1
        return self._left < 0 or bool(self._line)

    async def stand_in_line(self) -> None:
        """Wait for a turn. Cancellation: the place in the line is given up."""
        if not self._waking:
            self._waking = True
            trio.lowlevel.current_trio_token().run_sync_soon(self._wake)
        task = trio.lowlevel.current_task()
        self._line[task] = None
        await trio.lowlevel.wait_task_rescheduled(partial(self._leave, task))

    def _leave(
        self, task: trio.lowlevel.Task, _raise_cancel: object
    ) -> trio.lowlevel.Abort:
        del self._line[task]
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self) -> None:
        """Let the first in line pass; come again in the next turn for the others."""
        for task in list(islice(self._line, self.at_most)):
            del self._line[task]
            trio.lowlevel.reschedule(task)
        self._waking = bool(self._line)
        if self._waking:
            trio.lowlevel.current_trio_token().run_sync_soon(self._wake)


class ClientTransport:
    """One accepted TCP (or Unix) connection.

    Rule 1: a write is synchronous. `write` gives the kernel what it takes at once and
    keeps the rest in order, so frames of several tasks never interleave and no lock is
    needed. Rule 2: whoever has written then waits in `drain`, which is where
    backpressure is felt. It may be cancelled at any time without harm: what was written
    stays queued, whole. Rule 3: if the peer acknowledges nothing for `write_stall_s`,
    the connection is aborted.
    """

    __slots__ = (
        "_flushing",
        "_fresh",
        "_sends",
        "broken",
        "family",
        "limits",
        "on_broken",
        "overflowed",
        "pending",
        "sock",
        "stalled",
        "turns",
    )
    alpn: str | None = None
    tls = False

    def __init__(self, sock: socket.socket, limits: Limits, turns: Turns) -> None:
        self.sock = sock
        self.limits = limits
        self.turns = turns
        # Called once, when a read or a write has found that the client is gone.
        self.on_broken: Callable[[], None] | None = None
        self.pending = bytearray()
        self.broken = False
        self.stalled = False
        self.overflowed = False
        self._flushing: trio.Lock | None = None
        self._sends = 0
        self._fresh = True
        self.family = sock.family  # asked once: each time it is made an enum's member
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            _tune(sock, limits)

    async def handshake(self) -> None:
        """Do what must be done before the first byte of HTTP: for TCP nothing."""

    def write(self, data: bytes) -> None:
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

    async def drain(self) -> None:
        """Wait until all that was written is with the kernel; let others run sometimes.

        A send that goes through at once costs no scheduler pass; every sixteenth gives
        the other tasks their turn, so a tight loop of sends cannot starve them.
        """
        if self.pending:
            await self.flushed()
        elif self._sends < _SENDS_A_TURN - 1:
            self._sends += 1
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._sends = 0
            await trio.lowlevel.checkpoint()

    async def flushed(self) -> None:
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

    def leave_to_kernel(self) -> None:
        """Have the kernel take what waits here, as far as it has room.

        It goes on to send that when this process has ended: so who reads slowly has the
        end of its answer as well.
        """
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
            if option is not None:
                with suppress(OSError):  # the peer has gone
                    self.sock.setsockopt(socket.IPPROTO_TCP, option, _NO_BOUND)

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
                    if self.turns.crowded():
                        await self.turns.stand_in_line()
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

        Only Linux can say so while bytes are unread; elsewhere this never returns. Nor
        does it when the process is out of descriptors: the next write finds it then.
        """
        if not hasattr(select, "EPOLLRDHUP"):
            await trio.sleep_forever()
        if self.broken:
            return
        try:
            poller = select.epoll()
        except OSError:
            await trio.sleep_forever()
        with poller:
            poller.register(self.sock, select.EPOLLRDHUP)
            await trio.lowlevel.wait_readable(poller.fileno())

    async def hung_up_before(self, wait: Callable[[], Awaitable[None]]) -> bool:
        """Return when `wait` does, or the peer has hung up; True if that came first."""
        gone = True
        async with trio.open_nursery() as nursery:

            async def hung_up() -> None:
                await self.hung_up()
                nursery.cancel_scope.cancel(reason="the peer has hung up")

            nursery.start_soon(hung_up)
            await wait()
            gone = False
            nursery.cancel_scope.cancel(reason="the wait is over")
        return gone

    def _fail(self, exc: OSError) -> None:
        # TCP_USER_TIMEOUT: the kernel itself has found that nothing is acknowledged.
        self.stalled = self.stalled or exc.errno == errno.ETIMEDOUT
        self._break()

    def _break(self) -> None:
        if not self.broken:
            self.broken = True
            self.pending.clear()
            if self.on_broken is not None:
                self.on_broken()

    def finish_writing(self) -> None:
        """Tell the peer that no more bytes will come."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    async def linger(self) -> None:
        """End politely: flush, say so, and drop what still comes; bounded in time."""
        with trio.move_on_after(self.limits.linger_s):
            await self.flushed()
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

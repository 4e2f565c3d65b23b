"""One client connection, with every way to end it that TCP knows.

All acts are synchronous and note the instant just before the kernel is told. An instant
noted after the call can be late: with both cores busy this process was seen to be
preempted in between, and the effect to come 0.9 ms before its cause. Noted before, a
latency is too long by the system call, some ten microseconds, and never too short.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time

import trio

RECEIVE_BYTES = 65536
DISCARDED_READS = 1000  # before a close; a flood must not hold it up for ever


class ConnectionEndedError(Exception):
    """The peer ended the connection, or this side did; the text says how."""


class Connection:
    """A TCP or TLS connection of a client; not for use by two tasks at once."""

    def __init__(self, stream: trio.abc.Stream, sock: trio.socket.SocketType) -> None:
        """Take a connected stream and the socket below it; see ``connect``."""
        self._stream = stream
        self._socket = sock
        self.closed = False

    @property
    def local_port(self) -> int:
        """The client's own port."""
        return int(self._socket.getsockname()[1])

    async def send(self, data: bytes) -> int:
        """Send all of it and return when; ConnectionEndedError if the peer is gone."""
        now = time.monotonic_ns()
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionEndedError("reset while sending") from exc
        return now

    async def receive(self) -> bytes:
        """Return what has arrived, ``b""`` at the end of the peer's stream.

        Errors: ConnectionEndedError when the peer resets. Cancellation: loses nothing.
        """
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionEndedError("reset") from exc

    def fin(self) -> int:
        """Close in good order; return when.

        Unread bytes would turn the FIN into an RST, so they are thrown away first.
        """
        self._discard_unread()
        now = time.monotonic_ns()
        self.close()
        return now

    def rst(self) -> int:
        """Reset the connection (linger of zero seconds) and return when."""
        linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        now = time.monotonic_ns()
        self.close()
        return now

    def half_close(self) -> int:
        """Send FIN but go on reading, and return when."""
        raw = socket.fromfd(
            self._socket.fileno(), self._socket.family, self._socket.type
        )
        with raw:  # a second descriptor of the same socket: shutdown acts on both
            now = time.monotonic_ns()
            raw.shutdown(socket.SHUT_WR)
        return now

    def close(self) -> None:
        """Close without an opinion on how; harmless after any other ending."""
        self._socket.close()
        self.closed = True

    def _discard_unread(self) -> None:
        with socket.fromfd(
            self._socket.fileno(), self._socket.family, self._socket.type
        ) as raw:
            raw.setblocking(False)
            for _ in range(DISCARDED_READS):
                try:
                    if not raw.recv(RECEIVE_BYTES):
                        return
                except OSError:
                    return


async def connect(
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    receive_buffer: int | None = None,
) -> Connection:
    """Connect to a server on the loopback interface.

    ``receive_buffer`` (bytes) makes the kernel advertise a small window, for a client
    that is going to stop reading. Errors: OSError. Cancellation: nothing stays open.
    """
    sock = trio.socket.socket()
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await sock.connect(("127.0.0.1", port))
        stream: trio.abc.Stream = trio.SocketStream(sock)
        if tls is not None:
            secured = trio.SSLStream(stream, tls, server_hostname="localhost")
            await secured.do_handshake()
            stream = secured
    except BaseException:
        sock.close()
        raise
    return Connection(stream, sock)


def client_tls(alpn: str) -> ssl.SSLContext:
    """Return a context that trusts anyone: the peer is our own child on loopback."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context

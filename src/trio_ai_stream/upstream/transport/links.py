"""One open connection as bytes: how to wait for them, take them, send and close.

A link splits reading in two, because that is what makes an event cheap: `wait` is the
one schedule and cancel point, `take` is a plain call that never blocks. Closing is a
plain call too, so that a cancelled task can close at once, without another await.

`take` returns a view of a buffer that all links of a transport share: it is valid
until the next await. So an idle stream holds no buffer at all.
"""

from __future__ import annotations

import fcntl
import functools
import os
import select
import ssl
import sys
import termios
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol

import trio

from trio_ai_stream.upstream.transport.transport_limits import BLOCK_BYTES

CLOSED = "this connection was closed on our side"


async def wait_closed() -> None:
    """Refuse to wait for a link that was closed on this side."""
    raise trio.ClosedResourceError(CLOSED)


class ClosedLink:
    """Stands in for a link that was closed, so that its sockets and keys are freed.

    httpx's responses sit in a reference cycle, and hold on to their connection: what
    the connection holds must not wait for the garbage collector with them.
    """

    __slots__ = ()
    sent = 0

    async def wait(self) -> None:
        await wait_closed()

    def unacknowledged(self) -> int:
        return 0  # it cannot be known any more

    def take(self) -> NoReturn:
        raise trio.ClosedResourceError(CLOSED)

    def push(self, data: bytes) -> NoReturn:
        raise trio.ClosedResourceError(CLOSED)

    async def flush(self) -> None:
        raise trio.ClosedResourceError(CLOSED)

    def stale(self) -> bool:
        return True

    def close(self) -> None:
        pass


def closer(stream: trio.abc.AsyncResource) -> Callable[[], None]:
    """Find the plain call that closes a stream at once, through its wrappers.

    Errors: `TypeError` for a stream that can only be closed with an await: a cancelled
    task could not close it without waiting.
    """
    if isinstance(stream, trio.SocketStream):
        return stream.socket.close
    if isinstance(stream, trio.SSLStream):
        return closer(stream.transport_stream)
    if isinstance(stream, trio.StapledStream):
        close_send = closer(stream.send_stream)
        close_receive = closer(stream.receive_stream)

        def close_both() -> None:
            close_send()
            close_receive()

        return close_both
    close = getattr(stream, "close", None)
    if not callable(close):
        raise TypeError(
            "expected a stream with a plain close() method, got "
            f"{type(stream).__name__}; give it one that closes without waiting"
        )
    found: Callable[[], None] = close
    return found


Wait = Callable[[], Awaitable[None]]


class Buffers:
    """What every link of one transport reads through, and TLS writes through.

    All of it is empty between two calls of a link. OpenSSL never lets go of the memory
    that a handshake took in its two, `incoming` and `outgoing`, so links share these.
    """

    __slots__ = ("incoming", "outgoing", "plain", "wire")

    def __init__(self) -> None:
        self.wire = memoryview(bytearray(BLOCK_BYTES))
        self.plain = memoryview(bytearray(BLOCK_BYTES))
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()


class ByteLink(Protocol):
    """An open connection; one task may read while another one writes."""

    @property
    def wait(self) -> Wait:
        """Wait until `take` may have something. Cancellation: nothing is lost."""

    @property
    def sent(self) -> int:
        """Bytes that may have left this host; if it has not grown, nothing was sent."""

    def unacknowledged(self) -> int:
        """Return how many of the bytes sent the peer's host has not confirmed."""

    def take(self) -> bytes | memoryview | None:
        """Return what has arrived, b"" at the end, None when there is nothing."""

    def push(self, data: bytes) -> bool:
        """Send what fits without waiting; tell whether all of it went out."""

    async def flush(self) -> None:
        """Send what `push` could not. Cancellation: a part is lost, so close."""

    def stale(self) -> bool:
        """Tell whether an idle link has been closed or spoken on by the peer."""

    def close(self) -> None:
        """Close at once, waking whoever waits. Idempotent."""


class SocketLink:
    """A plain TCP connection, read without a coroutine of its own.

    After a read that emptied the socket the next wait goes straight to epoll; after a
    full read there may be more, so the next wait is a bare checkpoint. Either way a
    stream that has much to say lets every other task run between two blocks. After a
    write the next wait is a look for a cancel only: while the client is told that its
    request is on the way, a near upstream has answered.
    """

    __slots__ = (
        "_fd",
        "_flushing",
        "_readable",
        "_stream",
        "_unsent",
        "_view",
        "sent",
        "wait",
    )
    wait: Wait

    def __init__(self, stream: trio.SocketStream, buffers: Buffers) -> None:
        self._stream = stream
        self._fd = stream.socket.fileno()
        self._view = buffers.wire
        self._unsent = b""
        self._flushing = False
        self._readable: Wait = functools.partial(
            trio.lowlevel.wait_readable, stream.socket
        )
        self.wait = self._readable
        self.sent = 0

    def unacknowledged(self) -> int:
        answer = fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

    def take(self) -> memoryview | None:
        if self._fd < 0:
            raise trio.ClosedResourceError(CLOSED)
        try:
            size = os.readv(self._fd, (self._view,))
        except BlockingIOError:
            self.wait = self._readable
            return None
        self.wait = trio.lowlevel.checkpoint if size == BLOCK_BYTES else self._readable
        return self._view[:size]

    def push(self, data: bytes) -> bool:
        if self._fd < 0:
            raise trio.ClosedResourceError(CLOSED)
        if self._flushing or self._unsent:  # keep the order of the bytes
            self._unsent += data
            return False
        try:
            size = os.write(self._fd, data)
        except BlockingIOError:
            size = 0
        self.sent += size
        self._unsent = data[size:]
        self.wait = trio.lowlevel.checkpoint_if_cancelled
        return not self._unsent

    async def flush(self) -> None:
        self._flushing = True
        try:
            while self._unsent:
                data, self._unsent = self._unsent, b""
                self.sent += len(data)
                await self._stream.send_all(data)
        finally:
            self._flushing = False

    def stale(self) -> bool:
        return self._fd < 0 or readable(self._fd)

    def close(self) -> None:
        self._fd = -1
        self.wait = wait_closed
        self._stream.socket.close()


class StreamLink:
    """Any Trio stream, such as a memory stream under a mock clock."""

    __slots__ = ("_close", "_data", "_stream", "_unsent", "sent", "wait")
    wait: Wait

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._close = closer(stream)
        self._data: bytes | bytearray | None = None
        self._unsent = b""
        self.wait = self._receive
        self.sent = 0

    async def _receive(self) -> None:
        self._data = await self._stream.receive_some(BLOCK_BYTES)

    def unacknowledged(self) -> int:
        return 0

    def take(self) -> bytes | None:
        data, self._data = self._data, None
        return data if data is None else bytes(data)

    def push(self, data: bytes) -> bool:
        self._unsent += data
        return False  # only an await can send on a stream

    async def flush(self) -> None:
        while self._unsent:
            data, self._unsent = self._unsent, b""
            self.sent += len(data)
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError:
                self.sent -= len(data)  # a memory stream takes all or nothing
                raise

    def stale(self) -> bool:
        return False  # a stream cannot tell; sending again covers it

    def close(self) -> None:
        self._close()


def readable(fd: int) -> bool:
    """Tell, without waiting, whether a socket has data, its end or an error."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


class TlsLink:
    """A TLS client over another link; call `handshake` first, once.

    The bytes pass through two in-memory BIOs, so one read of the socket may hold many
    TLS records and is decrypted in one go. A connection that ends without close_notify
    ends like one that has it, as browsers do: HTTP's own framing tells a cut response
    from a whole one, and only a body that is delimited by the close itself cannot be
    told apart.
    """

    __slots__ = (
        "_arrived",
        "_asked",
        "_ended",
        "_incoming",
        "_link",
        "_more",
        "_outgoing",
        "_plain",
        "_tls",
        "wait",
    )
    wait: Wait

    def __init__(
        self,
        link: ByteLink,
        context: ssl.SSLContext,
        buffers: Buffers,
        *,
        server_hostname: str,
    ) -> None:
        self._link = link
        self._incoming = buffers.incoming
        self._outgoing = buffers.outgoing
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._plain = buffers.plain
        self._arrived = b""  # encrypted, not given to OpenSSL yet
        self._ended = False
        self._more = False
        self._asked = False
        self.wait = link.wait

    @property
    def sent(self) -> int:
        return self._link.sent

    def unacknowledged(self) -> int:
        return self._link.unacknowledged()

    async def handshake(self) -> None:
        """Agree on keys and check the certificate.

        Errors: `ssl.SSLError` (an `OSError`), `OSError`. Cancellation: close the link;
        it is of no use any more.
        """
        while True:
            done, answer = self._shake_hands()
            if answer and not self._link.push(answer):
                await self._link.flush()
            if done:
                break
            await self._link.wait()
            data = self._link.take()
            if data is not None and not data:
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the server has closed")
            self._arrived = bytes(data or b"")
        if self._arrived:
            self.wait = trio.lowlevel.checkpoint

    def _shake_hands(self) -> tuple[bool, bytes]:
        """Go one step on; whether it was the last one, and what the server is told."""
        self._incoming.write(self._arrived)
        done = False
        try:
            self._tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        finally:
            self._arrived = self._incoming.read()
            answer = self._outgoing.read()
        return done, answer

    def take(self) -> memoryview | None:
        if self._arrived:
            self._incoming.write(self._arrived)
            self._arrived = b""
        elif not self._more:
            data = self._link.take()
            if data:
                self._incoming.write(data)
            elif data is not None:
                self._ended = True
        try:
            size = self._decrypt()
        finally:
            if self._incoming.pending:
                self._arrived = self._incoming.read()
            # An answer to a key update (RFC 8446, 4.6.3), or an alert.
            answer = self._outgoing.read() if self._outgoing.pending else b""
        if answer:
            self._link.push(answer)
        self._more = size == BLOCK_BYTES
        self.wait = trio.lowlevel.checkpoint if self._more else self._link.wait
        return None if size is None else self._plain[:size]

    def push(self, data: bytes) -> bool:
        left = memoryview(data)
        try:
            while left:  # OpenSSL may take one record at a time
                left = left[self._tls.write(left) :]
        finally:
            records = self._outgoing.read()
        self._asked = True
        return self._link.push(records)

    async def flush(self) -> None:
        await self._link.flush()

    def stale(self) -> bool:
        """As for any link; a late session ticket (RFC 8446, 4.6.1) is no data."""
        if not self._link.stale():
            return False
        try:
            return self.take() is not None
        except (OSError, trio.ClosedResourceError):
            return True

    def close(self) -> None:
        self._link.close()
        self.wait = self._link.wait

    def _decrypt(self) -> int | None:
        """Decrypt into the shared buffer; 0 at the end, None if a record is partial.

        Session tickets (RFC 8446, 4.6.1) come with the first answer, or before it. To
        read them OpenSSL takes 16 kB, which it gives back at the next write only. So an
        empty write follows the first answer; it sends nothing (SSL_write_ex(3)).
        """
        tls, incoming, plain = self._tls, self._incoming, self._plain
        filled = 0
        try:
            while filled < BLOCK_BYTES:
                # With a buffer, read returns a count; typeshed knows the other form.
                size: int = tls.read(BLOCK_BYTES - filled, plain[filled:])  # type: ignore[assignment]
                if not size:
                    return filled
                filled += size
                if not incoming.pending and not tls.pending():
                    break
        except ssl.SSLWantReadError:
            if not filled:
                return 0 if self._ended else None
        if self._asked:
            self._asked = False
            tls.write(b"")
        return filled

"""TLS over a socket link: decrypt a block at a time, and close without ceremony.

The bytes pass through two in-memory BIOs, so one read of the socket may hold many TLS
records and is decrypted in one go. A connection that ends without close_notify ends
like one that has it, as browsers do: HTTP's own framing tells a cut response from a
whole one, and only a body that is delimited by the close itself cannot be told apart.
"""

from __future__ import annotations

import ssl

import trio

from trio_ai_stream.upstream.transport.limits import BLOCK_BYTES
from trio_ai_stream.upstream.transport.link import Buffers, SocketLink, Wait


class TlsLink:
    """A TLS client over a `SocketLink`; call `handshake` first, once."""

    __slots__ = ("_incoming", "_more", "_outgoing", "_plain", "_socket", "_tls", "wait")
    wait: Wait

    def __init__(
        self,
        socket: SocketLink,
        context: ssl.SSLContext,
        buffers: Buffers,
        *,
        server_hostname: str,
    ) -> None:
        self._socket = socket
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._plain = buffers.plain
        self._more = False
        self.wait = socket.wait

    @property
    def sent(self) -> int:
        return self._socket.sent

    def unacknowledged(self) -> int:
        return self._socket.unacknowledged()

    async def handshake(self) -> None:
        """Agree on keys and check the certificate.

        Errors: `ssl.SSLError` (an `OSError`), `OSError`. Cancellation: close the link;
        it is of no use any more.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send_outgoing()
                await self._socket.wait()
                self._fill()
            else:
                await self._send_outgoing()
                return

    def take(self) -> memoryview | None:
        if not self._more:
            self._fill()
        size = self._decrypt()
        if self._outgoing.pending:  # an answer to a key update (RFC 8446, 4.6.3)
            self._socket.push(self._outgoing.read())
        self._more = size == BLOCK_BYTES
        self.wait = trio.lowlevel.checkpoint if self._more else self._socket.wait
        return None if size is None else self._plain[:size]

    def push(self, data: bytes) -> bool:
        left = memoryview(data)
        while left:  # OpenSSL may take one record at a time
            left = left[self._tls.write(left) :]
        return self._socket.push(self._outgoing.read())

    async def flush(self) -> None:
        await self._socket.flush()

    def stale(self) -> bool:
        """As for any link; a late session ticket (RFC 8446, 4.6.1) is no data."""
        if not self._socket.stale():
            return False
        try:
            return self.take() is not None
        except (OSError, trio.ClosedResourceError):
            return True

    def close(self) -> None:
        self._socket.close()
        self.wait = self._socket.wait

    async def _send_outgoing(self) -> None:
        if self._outgoing.pending and not self._socket.push(self._outgoing.read()):
            await self._socket.flush()

    def _fill(self) -> None:
        """Move what has arrived on the socket into OpenSSL's input."""
        data = self._socket.take()
        if data is None:
            return
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _decrypt(self) -> int | None:
        """Decrypt into the shared buffer; 0 at the end, None if a record is partial."""
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
                    return filled
        except ssl.SSLWantReadError:
            return filled or None
        except ssl.SSLEOFError:
            return filled
        return filled

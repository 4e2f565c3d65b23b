"""TLS over a `ClientTransport`, by OpenSSL's memory buffers.

Encrypting is synchronous, so a TLS connection keeps the transport's rules: a write is
never half done when its task is cancelled.
"""

from __future__ import annotations

import socket
import ssl

from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.sockets import RECEIVE_BYTES, ClientTransport, Turns


class RecordBuffers:
    """What OpenSSL reads TLS records from, and writes them to.

    All connections of a worker share one pair, for OpenSSL never lets go of the memory
    that the records of a handshake took. Both buffers are empty between two calls of a
    connection: a byte that stayed would be another client's.
    """

    __slots__ = ("incoming", "outgoing")

    def __init__(self) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()


class TLSTransport(ClientTransport):
    """An accepted connection whose bytes are encrypted."""

    __slots__ = ("_arrived", "_buffers", "_ended", "_tls", "alpn")
    tls = True

    def __init__(
        self,
        sock: socket.socket,
        limits: Limits,
        turns: Turns,
        context: ssl.SSLContext,
        buffers: RecordBuffers,
    ) -> None:
        super().__init__(sock, limits, turns)
        self.alpn = None
        self._buffers = buffers
        self._tls = context.wrap_bio(
            buffers.incoming, buffers.outgoing, server_side=True
        )
        self._arrived = b""  # encrypted, behind the handshake
        self._ended = False

    async def handshake(self) -> None:
        """Complete the handshake.

        :raises ssl.SSLError: what came is not TLS, or not TLS that we speak.
        :raises OSError: the client went away.
        """
        while not self._shake_hands():
            self._arrived = await super().receive()
            if not self._arrived:
                raise ConnectionResetError("closed during the handshake")
        self.alpn = self._tls.selected_alpn_protocol()

    def _shake_hands(self) -> bool:
        """Go one step on; False if the client's part must come first."""
        self._buffers.incoming.write(self._arrived)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        else:
            return True
        finally:
            self._arrived = self._buffers.incoming.read()
            self._write_encrypted()  # on failure the alert that tells the client why

    def write(self, data: bytes) -> None:
        """Encrypt and write `data`; never blocks."""
        if self.broken:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError:
            self._break()
        finally:
            self._write_encrypted()

    async def receive(self) -> bytes:
        """Return what has arrived, decrypted; `b""` at the end or after a failure."""
        while not self._ended:
            data, self._arrived = self._arrived, b""
            if not data:
                if self.pending and await self.hung_up_before(self.flushed):
                    break
                data = await super().receive()
                if not data:
                    break
            plain = self._decrypt(data)
            if plain:
                return plain
        return b""

    def _decrypt(self, data: bytes) -> bytes:
        """Return what the records up to here hold; OpenSSL keeps a partial one."""
        pieces = []
        self._buffers.incoming.write(data)
        try:
            while piece := self._tls.read(RECEIVE_BYTES):
                pieces.append(piece)
            self._ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._ended = True  # also by close_notify
        finally:
            self._buffers.incoming.read()  # what came behind the end
            self._write_encrypted()
        return b"".join(pieces)

    def finish_writing(self) -> None:
        """Send close_notify, then end the TCP stream."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the client's close_notify is not waited for
        finally:
            self._write_encrypted()
        super().finish_writing()

    def _write_encrypted(self) -> None:
        data = self._buffers.outgoing.read()
        if data:
            super().write(data)

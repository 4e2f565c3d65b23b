"""TLS over a `ClientTransport`, by OpenSSL's memory buffers.

Encrypting is synchronous, so a TLS connection keeps the transport's rules: a write is
never half done when its task is cancelled.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.sockets import RECEIVE_BYTES, ClientTransport
from trio_ai_stream.server.turns import Turns


class TLSTransport(ClientTransport):
    """An accepted connection whose bytes are encrypted."""

    tls = True

    def __init__(
        self, sock: socket.socket, limits: Limits, turns: Turns, context: ssl.SSLContext
    ) -> None:
        super().__init__(sock, limits, turns)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self) -> None:
        """Complete the handshake.

        :raises ssl.SSLError: what came is not TLS, or not TLS that we speak.
        :raises OSError: the client went away.
        """
        while not self._shake_hands():
            await self._feed()
            if self._incoming.eof:
                raise ConnectionResetError("closed during the handshake")
        self.alpn = self._tls.selected_alpn_protocol()

    def _shake_hands(self) -> bool:
        """Go one step on; False if the client's part must come first."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        else:
            return True
        finally:
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
            return
        self._write_encrypted()

    async def receive(self) -> bytes:
        """Return what has arrived, decrypted; `b""` at the end or after a failure."""
        while True:
            try:
                return self._tls.read(RECEIVE_BYTES)
            except ssl.SSLWantReadError:
                self._write_encrypted()
                if self._incoming.eof:
                    return b""
                if self.pending and await self.hung_up_before(self.flushed):
                    return b""
                await self._feed()
            except ssl.SSLError:
                # Also the end of the connection, with or without close_notify.
                self._write_encrypted()
                return b""

    def finish_writing(self) -> None:
        """Send close_notify, then end the TCP stream."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._write_encrypted()
        super().finish_writing()

    async def _feed(self) -> None:
        data = await super().receive()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _write_encrypted(self) -> None:
        data = self._outgoing.read()
        if data:
            super().write(data)

"""A line between browser and server that can be cut: a TCP relay in threads.

Playwright's `set_offline` refuses new connections and leaves the old ones as they are.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Line:
    """Relays to a server; `cut` closes all connections and takes no new ones."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self.url = f"{parts.scheme}://127.0.0.1:{self._port}"
        self._lock = threading.Lock()
        self._live: set[socket.socket] = set()
        threading.Thread(
            target=self._accept, args=[self._listener], daemon=True
        ).start()

    def cut(self) -> None:
        """Close the listener and every connection; idempotent."""
        # A thread in `accept` keeps a closed listener: `shutdown` wakes it.
        _end(self._listener)
        self._listener.close()
        with self._lock:
            for one in self._live:
                _end(one)

    def mend(self) -> None:
        """Take connections again, on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(
            target=self._accept, args=[self._listener], daemon=True
        ).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            with self._lock:
                self._live |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        _end(source)
        _end(sink)
        with self._lock:
            self._live.discard(source)
        source.close()  # the sink is the other thread's to close


def _end(one: socket.socket) -> None:
    with suppress(OSError):  # the other side may have ended it
        one.shutdown(socket.SHUT_RDWR)

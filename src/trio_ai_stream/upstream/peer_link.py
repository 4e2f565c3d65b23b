"""One request to another process of this deployment, for a stream that it owns.

It goes over the same transport as requests to upstream, so leaving it is closing its
socket, and nothing is read ahead of a block. Each request has its own connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
import trio

from trio_ai_stream.upstream.transport.dial import watch_peer
from trio_ai_stream.upstream.transport.transport_errors import cause_of
from trio_ai_stream.upstream.transport.transport_limits import TransportLimits
from trio_ai_stream.upstream.transport.upstream_transport import (
    TransportResponse,
    UpstreamTransport,
)

CONNECT_S: Final = 2.0
"""To a process of this host, or of one beside it."""

_UNIX: Final = ".unix"
_LIMITS: Final = TransportLimits(max_idle=0)


class PeerGoneError(Exception):
    """Nobody is there: the process has ended, or cannot be reached."""


class PeerLostError(Exception):
    """The process may be there, and did not do what was asked; the text says why."""


class PeerResponse:
    """The answer of another process: its head, then its body, block for block."""

    def __init__(self, response: TransportResponse) -> None:
        self.status = response.head.status
        self.field = response.field
        self._body = response.body

    async def receive(self) -> bytes:
        """Return the next block, b"" at the end.

        :raises PeerLostError: the connection has broken.

        *Cancellation:* the connection is closed.
        """
        try:
            return await self._body.receive()
        except httpx.TransportError as exc:
            raise PeerLostError(str(exc)) from exc

    def close(self) -> None:
        """Close the connection, unless the body has ended; synchronous, idempotent."""
        self._body.abort()


class PeerLink:
    """Asks other processes; `folder` is that of their Unix sockets, if they have any.

    An address is host and port; port 0 stands for the Unix socket of that name.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._transport = UpstreamTransport(connect=self._connect, limits=_LIMITS)

    async def ask(
        self,
        address: tuple[str, int],
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
    ) -> PeerResponse:
        """Send a request without a body; return the answer, which the caller closes.

        :raises PeerGoneError: nobody listens there.
        :raises PeerLostError: there was no answer for another reason.

        *Cancellation:* the connection is closed.
        """
        host, port = address
        place = f"{host}:{port}" if port else host + _UNIX
        if ":" in host:
            place = f"[{host}]:{port}"
        request = httpx.Request(
            method,
            f"http://{place}{target}",
            headers=[("Host", "localhost"), ("Connection", "close"), *headers],
            extensions={"timeout": {"connect": CONNECT_S}},
        )
        try:
            return PeerResponse(await self._transport.exchange(request))
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            kind = PeerLostError if cause_of(exc).ours else PeerGoneError
            raise kind(str(exc)) from exc
        except httpx.TransportError as exc:
            raise PeerLostError(str(exc)) from exc

    async def _connect(self, host: str, port: int, _tls: bool) -> trio.SocketStream:
        if host.endswith(_UNIX):
            assert self._folder is not None
            return await self._connect_here(self._folder / host.removesuffix(_UNIX))
        stream = await trio.open_tcp_stream(host, port)
        watch_peer(stream.socket, _LIMITS.peer_timeout_s)
        return stream

    async def _connect_here(self, path: Path) -> trio.SocketStream:
        try:
            return await trio.open_unix_socket(path)
        except ConnectionRefusedError:  # its process was killed
            _remove(path)
            raise


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)

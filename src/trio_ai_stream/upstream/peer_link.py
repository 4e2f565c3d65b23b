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

        :raises PeerLostError: the connection has broken, or was closed here.

        *Cancellation:* the connection is closed.
        """
        try:
            return await self._body.receive()
        except httpx.StreamClosed as exc:  # by `close`, while a block was written
            raise PeerLostError("it has been left") from exc
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
        self._here = UpstreamTransport(connect=self._connect_here, limits=_LIMITS)
        self._there = UpstreamTransport(connect=_connect_there, limits=_LIMITS)

    async def ask(
        self,
        address: tuple[str, int],
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        *,
        silent_s: float,
    ) -> PeerResponse:
        """Send a request without a body; return the answer, which the caller closes.

        It is lost if nothing of it, head or body, comes for `silent_s` seconds.

        :raises PeerGoneError: nobody listens there.
        :raises PeerLostError: there was no answer for another reason.

        *Cancellation:* the connection is closed.
        """
        host, port = address
        transport = self._there if port else self._here
        place = f"[{host}]" if ":" in host else host
        if port:
            place = f"{place}:{port}"
        request = httpx.Request(
            method,
            f"http://{place}{target}",
            headers=[("Host", "localhost"), ("Connection", "close"), *headers],
            extensions={"timeout": {"connect": CONNECT_S, "read": silent_s}},
        )
        try:
            return PeerResponse(await transport.exchange(request))
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            kind = PeerLostError if cause_of(exc).ours else PeerGoneError
            raise kind(str(exc)) from exc
        except httpx.TransportError as exc:
            raise PeerLostError(str(exc)) from exc

    async def _connect_here(
        self, name: str, _port: int, _tls: bool
    ) -> trio.SocketStream:
        assert self._folder is not None
        path = self._folder / name
        try:
            return await trio.open_unix_socket(path)
        except ConnectionRefusedError:  # its process was killed
            _remove(path)
            raise


async def _connect_there(host: str, port: int, _tls: bool) -> trio.SocketStream:
    stream = await trio.open_tcp_stream(host, port)
    watch_peer(stream.socket, _LIMITS.peer_timeout_s)
    return stream


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)

"""One request to another process of this deployment, for a stream that it owns.

It goes over the same transport as requests to upstream, so leaving it is closing its
socket, and nothing is read ahead of a block. Each request has its own connection.
"""

from __future__ import annotations

import errno
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx
import trio

from trio_ai_stream.upstream.transport.dial import Origin, watch_peer
from trio_ai_stream.upstream.transport.http1_messages import RequestMessage
from trio_ai_stream.upstream.transport.pool import RequestTimeouts
from trio_ai_stream.upstream.transport.transport_errors import (
    REFUSED,
    cause_of,
    describe,
)
from trio_ai_stream.upstream.transport.transport_limits import TransportLimits
from trio_ai_stream.upstream.transport.upstream_transport import (
    TransportResponse,
    UpstreamTransport,
)

CONNECT_S: Final = 2.0
"""To a process of this host, or of one beside it."""

# No circuit: a process that is back at the address of one that had died is asked at
# once, and a dead one is known after the first refusal.
_LIMITS: Final = TransportLimits(max_idle=0, circuit_failures=sys.maxsize)


class PeerGoneError(Exception):
    """Nobody listens there: the process has ended."""


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
        fields = [("Host", "localhost"), ("Connection", "close"), *headers]
        raw = [
            (name.encode("ascii"), value.encode("latin-1")) for name, value in fields
        ]
        timeouts = RequestTimeouts(CONNECT_S, math.inf, silent_s)
        try:
            message = RequestMessage(
                method, target.encode("ascii"), raw, httpx.ByteStream(b"")
            )
            response = await transport.send(
                Origin(False, host, port), message, timeouts
            )
            return PeerResponse(response)
        except httpx.TransportError as exc:
            # Only its own host can say that nobody is there: without an answer the way
            # to it may be broken, and the process lives.
            refused = isinstance(exc, httpx.ConnectError) and cause_of(exc) is REFUSED
            raise (PeerGoneError if refused else PeerLostError)(describe(exc)) from exc

    async def _connect_here(
        self, name: str, _port: int, _tls: bool
    ) -> trio.SocketStream:
        assert self._folder is not None
        path = self._folder / name
        try:
            return await trio.open_unix_socket(path)
        except ConnectionRefusedError:  # its process was killed
            with suppress(OSError):  # gone, or on a disk that has become read-only
                path.unlink()
            raise
        except FileNotFoundError as exc:  # it has ended, and removed its socket
            raise ConnectionRefusedError(errno.ECONNREFUSED, str(exc)) from exc


async def _connect_there(host: str, port: int, _tls: bool) -> trio.SocketStream:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as exc:
        raise _reason(exc) from exc
    watch_peer(stream.socket, _LIMITS.peer_timeout_s)
    return stream


def _reason(exc: OSError) -> OSError:
    """Return what an address said: no refusal, if another said something else."""
    group = exc.__cause__
    if not isinstance(group, ExceptionGroup):
        return exc
    said = [one for one in group.exceptions if isinstance(one, OSError)]
    other = (one for one in said if not isinstance(one, ConnectionRefusedError))
    return next(other, said[0])

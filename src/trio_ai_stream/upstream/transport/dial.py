"""From an origin to an open link: DNS, TCP with Happy Eyeballs, TLS.

Every step closes what it opened when it is left by any exception, `Cancelled` included,
with plain calls: a cancelled dial leaves no socket behind, not even for a tick.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

import trio

from trio_ai_stream.upstream.transport.limits import TransportLimits
from trio_ai_stream.upstream.transport.link import (
    Buffers,
    Link,
    SocketLink,
    StreamLink,
)
from trio_ai_stream.upstream.transport.resolver import Address, Answer, Resolver
from trio_ai_stream.upstream.transport.tls import TlsLink

Connect = Callable[[str, int, bool], Awaitable[trio.abc.Stream]]
"""`async (host, port, tls) -> stream`: how a test replaces the network."""


class Origin(NamedTuple):
    """Whom a connection may serve: connections are shared within one origin only."""

    tls: bool
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class DialReport:
    """Whom a dial reached, and how long each step took, in seconds."""

    peer: str = ""
    dns_s: float = 0.0
    tcp_s: float = 0.0
    tls_s: float = 0.0


class Dialer:
    """Opens links, by the network or by the `connect` it was given."""

    def __init__(
        self,
        limits: TransportLimits,
        *,
        connect: Connect | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._connect = connect
        self._ssl_context = ssl_context
        self._buffers = Buffers()
        self.resolver = Resolver(limits)

    async def dial(self, origin: Origin, steps: list[str]) -> tuple[Link, DialReport]:
        """Open a connection to this origin, ready for the first request.

        Each step is noted in `steps` as it begins: a time-out has hit the last one.
        Errors: `OSError`, `UnicodeError` (a host name beyond IDNA), and what a given
        `connect` raises. Cancellation: whatever was open is closed.
        """
        t0 = trio.current_time()
        steps.append("looking up the name")
        if self._connect is not None:
            stream = await self._connect(origin.host, origin.port, origin.tls)
            return self._link(stream), DialReport(tcp_s=trio.current_time() - t0)
        addresses = await self.resolver.resolve(origin.host, origin.port)
        t1 = trio.current_time()
        steps.append("connecting")
        connected, peer = await _connect_first(
            addresses, self._limits.happy_eyeballs_delay_s
        )
        watch_peer(connected, self._limits.peer_timeout_s)
        tcp = SocketLink(trio.SocketStream(connected), self._buffers)
        t2 = trio.current_time()
        if not origin.tls:
            return tcp, DialReport(peer, t1 - t0, t2 - t1)
        steps.append("in the TLS handshake")
        tls = await self._secure(tcp, origin.host)
        return tls, DialReport(peer, t1 - t0, t2 - t1, trio.current_time() - t2)

    def _link(self, stream: trio.abc.Stream) -> Link:
        if isinstance(stream, trio.SocketStream):
            return SocketLink(stream, self._buffers)
        return StreamLink(stream)

    async def _secure(self, tcp: SocketLink, host: str) -> TlsLink:
        try:
            assert self._ssl_context is not None
            tls = TlsLink(tcp, self._ssl_context, self._buffers, server_hostname=host)
            await tls.handshake()
        except BaseException:
            tcp.close()
            raise
        return tls


Connected = tuple[trio.socket.SocketType, str]
"""A connected socket, and the address it is connected to."""


async def _connect_first(addresses: Answer, delay_s: float) -> Connected:
    """Connect to whichever address answers first (RFC 8305).

    Each address gets a head start of `delay_s`, or less if it fails before. Errors:
    `OSError` with what each address said. Cancellation: every socket is closed.
    """
    if len(addresses) == 1:
        return await _connect_one(addresses[0])
    winners: list[Connected] = []
    failures: list[OSError] = []
    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(
                    _attempt, address, failed, winners, failures, nursery.cancel_scope
                )
                with trio.move_on_after(delay_s):
                    await failed.wait()
    except BaseException:
        _close_all(winners)
        raise
    if not winners:
        said = "; ".join(sorted({str(failure) for failure in failures}))
        # Where one family has no route, the other's failure says more.
        told = min(failures, key=lambda failure: failure.errno == errno.ENETUNREACH)
        raise OSError(f"no address answered: {said}") from told
    _close_all(winners[1:])
    return winners[0]


async def _attempt(
    address: Address,
    failed: trio.Event,
    winners: list[Connected],
    failures: list[OSError],
    race: trio.CancelScope,
) -> None:
    try:
        winners.append(await _connect_one(address))
        race.cancel(reason="another address answered first")
    except OSError as exc:
        failures.append(exc)
        failed.set()


async def _connect_one(address: Address) -> Connected:
    family, sockaddr = address
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        await sock.connect(sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock, str(sockaddr[0])


def watch_peer(sock: trio.socket.SocketType, seconds: float) -> None:
    """Have the kernel find out that the peer's host is gone, though it says nothing.

    What was sent must be confirmed in time (RFC 5482), and in silence the kernel asks
    after half of it. Platforms without these options do without.
    """
    if seconds <= 0:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", 1000 * seconds),
        ("TCP_KEEPIDLE", seconds / 2),
        ("TCP_KEEPINTVL", seconds / 4),
        ("TCP_KEEPCNT", 2),
    ):
        if (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, max(1, round(value)))


def _close_all(connected: list[Connected]) -> None:
    for sock, _ in connected:
        sock.close()

"""From an origin to an open link: DNS, TCP with Happy Eyeballs, a proxy, TLS.

Every step closes what it opened when it is left by any exception, `Cancelled` included,
with plain calls: a cancelled dial leaves no socket behind, not even for a tick.

getaddrinfo blocks a thread and cannot be interrupted. So a look-up belongs to the
resolver, not to the task that asked: whoever asks only waits for an event, and leaves
at once when cancelled; the thread goes on until the C library gives up. At most
`dns_threads` of them exist, on a limit of their own, so that Trio's threads stay free.
Identical questions share one look-up. A host that answered before is still reachable
while DNS fails or hangs (RFC 8767, serving stale data).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import trio

from trio_ai_stream.upstream.transport.http1_messages import ResponseParser
from trio_ai_stream.upstream.transport.links import (
    Buffers,
    ByteLink,
    SocketLink,
    StreamLink,
    TlsLink,
)
from trio_ai_stream.upstream.transport.transport_errors import (
    InvalidResponseError,
    ProxyRefusedError,
)
from trio_ai_stream.upstream.transport.transport_limits import TransportLimits

if TYPE_CHECKING:
    import outcome  # Trio's own dependency; only named here

Connect = Callable[[str, int, bool], Awaitable[trio.abc.Stream]]
"""`async (host, port, tls) -> stream`: how a test replaces the network."""


class Origin(NamedTuple):
    """Whom a connection may serve: connections are shared within one origin only."""

    tls: bool
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class DialReport:
    """Whom a dial reached, and how long each step took, in seconds.

    A proxy's part counts as TCP.
    """

    peer: str = ""
    dns_s: float = 0.0
    tcp_s: float = 0.0
    tls_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that opens connections to others (`CONNECT`).

    `authorization` is the value of `Proxy-Authorization`; empty if it wants none.
    """

    origin: Origin
    authorization: str = field(default="", repr=False)

    async def open_tunnel(
        self, link: ByteLink, target: Origin, limits: TransportLimits
    ) -> None:
        """Have `link`, which leads to the proxy, lead to `target` (RFC 9110, 9.3.6).

        Errors: `ProxyRefusedError`, and what the link raises. Cancellation: close the
        link.
        """
        host = f"[{target.host}]" if ":" in target.host else target.host
        head = (
            f"CONNECT {host}:{target.port} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
        )
        if self.authorization:
            head += f"Proxy-Authorization: {self.authorization}\r\n"
        if not link.push(head.encode("ascii") + b"\r\n"):
            await link.flush()
        parser = ResponseParser("CONNECT", limits)
        rest = b""
        try:
            while parser.head is None:
                await link.wait()
                data = link.take()
                if data is None:
                    continue
                if not data:
                    parser.feed_end()
                rest = parser.feed(data)
        except InvalidResponseError as exc:
            raise ProxyRefusedError(f"the proxy's answer is no HTTP: {exc}") from exc
        finally:
            parser.release()
        if not 200 <= parser.head.status < 300 or rest:
            status = parser.head.status
            raise ProxyRefusedError(f"the proxy answered {status} to CONNECT")


class TrustError(ValueError):
    """The certificates that the environment names cannot be used."""


def client_tls() -> ssl.SSLContext:
    """Return what makes TLS connections for HTTP/1.1.

    It trusts SSL_CERT_FILE or SSL_CERT_DIR, or else the built-in list. Blocks for some
    tens of milliseconds, to read them.

    :raises TrustError: they cannot be read.
    """
    name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
    path = os.environ.get(name)
    wrong = f"{name}: expected trusted certificates (PEM), got {path}"
    if path and Path(path).is_fifo():  # opening one would wait for its writer
        raise TrustError(f"{wrong}: a pipe; name a regular file")
    try:
        context = httpx.create_ssl_context()
    except OSError as exc:
        why = "no certificates" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise TrustError(f"{wrong}: {why}") from exc
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Opens links, by the network or by the `connect` it was given."""

    def __init__(
        self,
        limits: TransportLimits,
        *,
        connect: Connect | None = None,
        proxy: Proxy | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._proxy = proxy
        self._connect = connect
        self._ssl_context = ssl_context
        self._buffers = Buffers()
        self.resolver = Resolver(limits)

    async def dial(
        self, origin: Origin, steps: list[str]
    ) -> tuple[ByteLink, DialReport]:
        """Open a connection to this origin, ready for the first request.

        Each step is noted in `steps` as it begins: a time-out has hit the last one.
        Errors: `OSError`, `UnicodeError` (a host name beyond IDNA), and what a given
        `connect` raises. Cancellation: whatever was open is closed.
        """
        proxy, peer = self._proxy, ""
        first = origin if proxy is None else proxy.origin
        began_at = looked_up_at = trio.current_time()
        steps.append("looking up the name")
        link: ByteLink
        if self._connect is not None:
            stream = await self._connect(first.host, first.port, first.tls)
            if isinstance(stream, trio.SocketStream):
                link = SocketLink(stream, self._buffers)
            else:
                link = StreamLink(stream)
        else:
            addresses = await self.resolver.resolve(first.host, first.port)
            looked_up_at = trio.current_time()
            steps.append("connecting")
            connected, peer = await _connect_first(
                addresses, self._limits.happy_eyeballs_delay_s
            )
            watch_peer(connected, self._limits.peer_timeout_s)
            link = SocketLink(trio.SocketStream(connected), self._buffers)
        try:
            if proxy is not None:
                link = await self._secure(link, first, steps)
                steps.append("asking the proxy")
                await proxy.open_tunnel(link, origin, self._limits)
            connected_at, tcp = trio.current_time(), link
            link = await self._secure(link, origin, steps)
        except BaseException:
            link.close()
            raise
        return link, DialReport(
            peer,
            dns_s=looked_up_at - began_at,
            tcp_s=connected_at - looked_up_at,
            tls_s=0.0 if link is tcp else trio.current_time() - connected_at,
        )

    async def _secure(
        self, link: ByteLink, origin: Origin, steps: list[str]
    ) -> ByteLink:
        """Speak TLS over `link` if `origin` does; a given `connect` has done so."""
        if not origin.tls or self._connect is not None:
            return link
        steps.append("in the TLS handshake")
        assert self._ssl_context is not None
        tls = TlsLink(
            link, self._ssl_context, self._buffers, server_hostname=origin.host
        )
        await tls.handshake()
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


Address = tuple[socket.AddressFamily, tuple[Any, ...]]
"""What a socket needs: its family, and the address in that family's form."""

Answer = tuple[Address, ...]
Lookup = Callable[..., Sequence[tuple[Any, ...]]]

_CACHE_SIZE = 256
"""Hosts remembered: a gateway talks to a handful, so this only bounds a mistake."""


@dataclass(slots=True)
class _Question:
    """One look-up under way, and what became of it."""

    key: tuple[str, int]
    done: trio.Event = field(default_factory=trio.Event)
    answer: Answer | None = None
    failure: Exception | None = None


class Resolver:
    """Resolves host names for one Trio run, with a cache on the Trio clock."""

    def __init__(
        self, limits: TransportLimits, *, lookup: Lookup = socket.getaddrinfo
    ) -> None:
        self._limits = limits
        self._lookup = lookup
        self._cache: OrderedDict[tuple[str, int], tuple[float, Answer]] = OrderedDict()
        self._questions: dict[tuple[str, int], _Question] = {}
        self._queue: deque[_Question] = deque()
        self.threads = 0

    def __repr__(self) -> str:
        return (
            f"<Resolver cached={len(self._cache)} asking={len(self._questions)} "
            f"threads={self.threads}>"
        )

    async def resolve(self, host: str, port: int) -> Answer:
        """Return the host's addresses, those of the two families alternating.

        Errors: `OSError` (gaierror) when the name has no address. Cancellation: leaves
        at once; the look-up goes on for others, and fills the cache.
        """
        if (numeric := _numeric(host, port)) is not None:
            return numeric
        key = (host, port)
        age, known = self._remembered(key)
        if known is not None and age < self._limits.dns_ttl_s:
            return known
        question = self._ask(key)
        if known is None:
            await question.done.wait()
        else:
            with trio.move_on_after(self._limits.dns_patience_s):
                await question.done.wait()
        answer = question.answer or known
        if answer is None:
            raise OSError(f"no address: {question.failure}") from question.failure
        return answer

    def _remembered(self, key: tuple[str, int]) -> tuple[float, Answer | None]:
        asked_at, answer = self._cache.get(key, (0.0, None))
        age = trio.current_time() - asked_at
        return age, answer if age < self._limits.dns_stale_ttl_s else None

    def _ask(self, key: tuple[str, int]) -> _Question:
        question = self._questions.get(key)
        if question is None:
            question = self._questions[key] = _Question(key)
            self._queue.append(question)
            self._start_queued()
        return question

    def _start_queued(self) -> None:
        while self._queue and self.threads < self._limits.dns_threads:
            self._start(self._queue.popleft())

    def _start(self, question: _Question) -> None:
        token = trio.lowlevel.current_trio_token()
        host, port = question.key

        def look_up() -> Answer:
            return _answer(self._lookup(host, port, type=socket.SOCK_STREAM))

        def deliver(result: outcome.Outcome[Answer]) -> None:
            # The run may be over: nobody waits for the answer then.
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._settle, question, result)

        trio.lowlevel.start_thread_soon(look_up, deliver, "trio-ai-stream DNS")
        self.threads += 1

    def _settle(self, question: _Question, result: outcome.Outcome[Answer]) -> None:
        self.threads -= 1
        del self._questions[question.key]
        try:
            question.answer = result.unwrap()
        except Exception as exc:
            question.failure = exc
        else:
            self._cache[question.key] = (trio.current_time(), question.answer)
            self._cache.move_to_end(question.key)
            if len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)
        question.done.set()
        self._start_queued()


def _numeric(host: str, port: int) -> Answer | None:
    """Return the address if the host is written as one: that needs no thread."""
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        return _answer(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        )
    except socket.gaierror:
        return None


def _answer(rows: Sequence[tuple[Any, ...]]) -> Answer:
    """Let the two families alternate, the preferred one first (RFC 8305, section 4)."""
    addresses = [(family, address) for family, _, _, _, address in rows]
    if not addresses:
        raise OSError("the name server knows no address of this host")
    first = addresses[0][0]
    preferred = [address for address in addresses if address[0] == first]
    others = [address for address in addresses if address[0] != first]
    mixed: list[Address] = []
    while preferred or others:
        mixed += preferred[:1] + others[:1]
        del preferred[:1], others[:1]
    return tuple(mixed)

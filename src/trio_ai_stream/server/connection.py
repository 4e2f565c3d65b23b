"""One client's connection: reads, deadlines, and the end that always comes.

A connection is two tasks while a response streams: this one, which reads (and so sees
the end of the connection at once), and the application's. All its deadlines are the one
deadline of the scope around the reading; `phase` says what is due then.
"""

from __future__ import annotations

import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from math import inf
from typing import Any, Final, Literal, Protocol

import trio
from hypercorn.config import Config
from hypercorn.typing import AppWrapper
from hypercorn.utils import parse_socket_addr

from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.sockets import ClientTransport

log: Final = logging.getLogger("trio_ai_stream.server")

# What a client that speaks HTTP/2 without TLS begins with (RFC 9113 3.4).
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

Intervention = Literal[
    "application_error",
    "bad_request",
    "body_timeout",
    "connection_error",
    "connection_refused",
    "flood",
    "handshake_failed",
    "head_timeout",
    "idle_timeout",
    "pending_overflow",
    "stream_refused",
    "write_stall",
]


@dataclass(slots=True)
class Tally:
    """The counts of one worker; totals are from the start of the process."""

    connections_open: int = 0
    connections_total: int = 0
    exchanges_live: int = 0
    exchanges_total: int = 0
    interventions: Counter[Intervention] = field(default_factory=Counter)
    workers_expected: int = 1
    # Unix time; 0 without TLS.
    certificate_expires_at: float = 0.0

    def snapshot(self) -> Tally:
        """Return the counts as they are now."""
        return replace(self, interventions=self.interventions.copy())


class Phase(Enum):
    """What a connection's deadline is for."""

    HANDSHAKE = "handshake"
    HEAD = "head"
    BODY = "body"
    RESPONSE = "response"
    IDLE = "idle"


_EXPIRED: Final[dict[Phase, Intervention]] = {
    Phase.HANDSHAKE: "handshake_failed",
    Phase.HEAD: "head_timeout",
    Phase.BODY: "body_timeout",
    Phase.IDLE: "idle_timeout",
}
"""What is counted when a deadline has passed."""


# Trio would make a text of it for each task, and keep it.
_EXCHANGE: Final = "trio_ai_stream.server.http_stream.HTTPStream.run"


class HTTPProtocol(Protocol):
    """HTTP/1.1 or HTTP/2 on a connection."""

    async def received(self, data: bytes) -> None:
        """Take bytes from the client."""

    def begin_drain(self) -> None:
        """Tell the client that no more requests are served, as far as HTTP can."""

    def refuse_late(self) -> None:
        """Answer those whose request has not arrived, instead of cutting them off."""

    def timed_out(self) -> None:
        """End what should have arrived by now."""

    def close(self) -> None:
        """Let go of the streams; the connection has ended."""


class LiveExchange(Protocol):
    """A request whose application has been started."""

    async def run(self) -> None:
        """Call the application; contains whatever it raises."""

    def disconnect(self, *, stalled: bool = False, drained: bool = False) -> None:
        """Tell the application that the client is gone; idempotent."""


class ConnectionOwner(Protocol):
    """What a connection needs of the worker that has accepted it."""

    app: AppWrapper
    config: Config
    limits: Limits
    state: dict[str, Any]
    tally: Tally
    draining: bool

    def exchange_begins(self) -> None:
        """Count an exchange in."""

    def exchange_ends(self) -> None:
        """Count an exchange out."""

    def connection_ends(self, connection: Connection) -> None:
        """Count a connection out; it is closed."""


@dataclass(slots=True, eq=False, repr=False)
class Connection:
    """A connection from its accept to its end.

    :raises OSError: the client has gone already.
    """

    worker: ConnectionOwner
    transport: ClientTransport
    # Called with True for HTTP/2, once it is known.
    make_protocol: Callable[[Connection, bool], HTTPProtocol]
    # It has one of the descriptors that are kept back, for a moment and for a request
    # that asks how the process is.
    spare: bool
    config: Config = field(init=False)
    limits: Limits = field(init=False)
    nursery: trio.Nursery = field(init=False)  # from `run` on
    # The peer's address as ASGI has it; None on a Unix socket. Then our own.
    client: tuple[str, int] | None = field(init=False)
    server: tuple[str, int] | None = field(init=False)
    http: HTTPProtocol | None = None
    phase: Phase = Phase.HANDSHAKE
    # The requests whose application runs; mostly one.
    live: list[LiveExchange] = field(default_factory=list)
    requests: int = 0
    ending: bool = False
    _gone: bool = False
    _lingering: bool = True
    _due: float = inf
    _reading: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __post_init__(self) -> None:
        self.config = self.worker.config
        limits = self.worker.limits
        self.limits = limits.for_spare() if self.spare else limits
        sock, family = self.transport.sock, self.transport.family
        self.client = parse_socket_addr(family, sock.getpeername())
        self.server = _shared(parse_socket_addr(family, sock.getsockname()))
        self.transport.on_broken = self.lost

    def __str__(self) -> str:
        """Peer and protocol state, for a log record."""
        peer = "{}:{}".format(*self.client) if self.client else "a Unix socket"
        kind = "tls" if self.transport.tls else "tcp"
        state = "no protocol yet" if self.http is None else str(self.http)
        return f"{peer} ({kind}, {self.phase.value}, {len(self.live)} live, {state})"

    async def run(self) -> None:
        """Serve the connection to its end; contains whatever it raises."""
        try:
            async with trio.open_nursery() as nursery:
                self.nursery = nursery
                await self._serve()
        except* Exception as group:
            self.intervened("connection_error")
            text = "contained a failure of %s"
            event = {"event": "connection_error"}
            log.exception(text, self, exc_info=group, extra=event)
        finally:
            try:
                self._close()
            finally:
                self.worker.connection_ends(self)

    def _close(self) -> None:
        self.transport.close()
        # Reference cycles; without them the memory is back at once.
        self.transport.on_broken = None
        if self.http is not None:
            self.http.close()
        self.http = None
        self.live.clear()

    async def _serve(self) -> None:
        """Read until an end of the connection, then leave it politely."""
        if self.transport.tls:
            self.await_within(Phase.HANDSHAKE, self.limits.tls_handshake_s)
        else:
            self.await_within(Phase.HEAD, self.limits.head_read_s)
        while not self.ending:
            with self._reading:
                live = self.http is not None or await self._begin()
                while live and not self.ending:
                    data = await self.transport.receive()
                    live = bool(data)
                    if self.http is not None and live:
                        await self.http.received(data)
                    del data  # it would be held until the client says more
                if not self.ending:
                    self.lost()
            if not self.ending:
                # Not if the last bytes waited for came just before the scope's end.
                if trio.current_time() >= self._due:
                    self._expired()
                self._reading = trio.CancelScope(deadline=self._due)
        if not self.transport.broken:
            self._tell_exchanges()
            if self._lingering:
                await self.transport.linger()
            elif self.live or self.transport.pending:
                self.transport.finish_writing()  # closing says it to all others

    async def _begin(self) -> bool:
        """Shake hands, and find out which HTTP is spoken; False: the client is gone."""
        if self.phase is Phase.HANDSHAKE:
            try:
                await self.transport.handshake()
            except (ssl.SSLError, OSError):
                self.intervened("handshake_failed")
                return False
            self.await_within(Phase.HEAD, self.limits.head_read_s)
        first = await self._first_bytes()
        if not first:
            return False
        # Over TLS only ALPN decides (RFC 9113 3.2, 3.3).
        prior_knowledge = not self.transport.tls and first.startswith(_PREFACE)
        http2 = self.transport.alpn == "h2" or prior_knowledge
        self.http = self.make_protocol(self, http2)
        await self.http.received(first)
        return True

    async def _first_bytes(self) -> bytes:
        """Return enough bytes to tell HTTP/2's preface (RFC 9113 3.4) from HTTP/1."""
        data = b""
        while self.transport.alpn != "h2":
            more = await self.transport.receive()
            data += more
            if not more:
                return b""
            if len(data) >= len(_PREFACE) or not _PREFACE.startswith(data):
                return data
        return data + await self.transport.receive()

    def await_within(self, phase: Phase, seconds: float) -> None:
        """Give what the connection now waits for its time."""
        self.await_until(phase, trio.current_time() + seconds)

    def await_until(self, phase: Phase, deadline: float) -> None:
        """Set what the connection waits for, and until when."""
        self.phase = phase
        if deadline != self._due:
            self._due = deadline
            self._reading.deadline = deadline

    def _expired(self) -> None:
        """Act on a deadline: say so where HTTP can, and end what it was for."""
        self.intervened(_EXPIRED[self.phase])
        if self.http is None:
            self.end(lingering=False)
        elif self.phase is Phase.IDLE:
            self.http.begin_drain()
            self.end(lingering=True)
        else:
            self.http.timed_out()

    # What the protocols and the transport call; all synchronous.

    def exchange_begins(self, exchange: LiveExchange) -> None:
        """Start the application for `exchange`."""
        self.live.append(exchange)
        self.requests += 1
        self.worker.exchange_begins()
        self.nursery.start_soon(exchange.run, name=_EXCHANGE)

    def exchange_ends(self, exchange: LiveExchange) -> None:
        """Take note that the application's call has ended."""
        if exchange in self.live:
            self.live.remove(exchange)
        self.worker.exchange_ends()

    def end(self, *, lingering: bool) -> None:
        """Read no more: flush, close, and wait for nothing new."""
        self.ending = True
        self._lingering = lingering
        self._reading.cancel(reason="the connection ends")

    def lost(self) -> None:
        """Tell every live exchange that its client is gone; idempotent."""
        if self.transport.stalled and not self._gone:
            self.intervened("write_stall")
        if self.transport.overflowed and not self._gone:
            self.intervened("pending_overflow")
        self._gone = True
        self._tell_exchanges()
        self.end(lingering=False)
        if self.transport.broken:
            self.transport.abort()

    def _tell_exchanges(self, *, drained: bool = False) -> None:
        for exchange in list(self.live):
            try:
                exchange.disconnect(stalled=self.transport.stalled, drained=drained)
            except Exception:  # the neighbours must be told as well
                self.intervened("application_error")
                log.exception("a callback failed", extra={"event": "callback_error"})

    async def unless_hung_up(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Read no further until `wait` is over, but look out for the client's end."""
        if await self.transport.hung_up_before(wait):
            self.lost()

    def abort(self) -> None:
        """Close at once with a reset, and tell the live exchanges."""
        self.transport.abort()
        self.lost()

    def begin_drain(self) -> None:
        """Let live exchanges go on and refuse what is new."""
        if self.http is not None:
            self.http.begin_drain()

    def end_drain(self) -> None:
        """Let the client have what it can still be sent: the drain's time is over."""
        self.transport.leave_to_kernel()
        if self.http is not None and not self.ending:
            self.http.refuse_late()

    def finish_drain(self) -> None:
        """Cut off what is live, and close.

        One that ends already does so in its own way. One whose client has not had all
        yet lingers: without it, what that client still sends could cost it the end of
        an answer (RFC 9112 section 9.6).
        """
        if self.live:
            self._tell_exchanges(drained=True)
            self.abort()
        elif not self.ending:
            self.end(lingering=self.transport.unacknowledged() > 0)

    @property
    def last_request(self) -> bool:
        """Whether the response now written is to be this connection's last."""
        return (
            self.worker.draining or self.requests >= self.limits.requests_per_connection
        )

    def intervened(self, kind: Intervention) -> None:
        """Count an intervention."""
        self.worker.tally.interventions[kind] += 1


@lru_cache(maxsize=16)
def _shared(address: tuple[str, int] | None) -> tuple[str, int] | None:
    """Return an address of ours, the same object for all connections."""
    return address

"""One client's connection: reads, deadlines, and the end that always comes.

A connection is two tasks while a response streams: this one, which reads (and so sees
the end of the connection at once), and the application's. All its deadlines are the one
deadline of the scope around the reading; which one is due says `phase`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from trio_ai_stream.server.guard import records
from trio_ai_stream.server.guard.counters import Intervention
from trio_ai_stream.server.guard.h2_setup import PREFACE
from trio_ai_stream.server.guard.http1 import GuardedH11
from trio_ai_stream.server.guard.http2 import GuardedH2
from trio_ai_stream.server.guard.phases import EXPIRED, Phase
from trio_ai_stream.server.guard.stream import GuardedStream
from trio_ai_stream.server.guard.transport import Transport
from trio_ai_stream.server.limits import Limits

if TYPE_CHECKING:
    from trio_ai_stream.server.guard.worker import Worker


class Connection(TCPServer):
    """Hypercorn's TCP server for one connection, guarded."""

    transport: Transport
    limits: Limits
    client: tuple[str, int] | None
    server: tuple[str, int] | None
    state: ConnectionState
    spare: bool

    def __init__(
        self,
        worker: Worker,
        make_transport: Callable[[Callable[[], None]], Transport],
        nursery: trio.Nursery,
        *,
        spare: bool = False,
    ) -> None:
        """Make one.

        :param spare: it has one of the descriptors that are kept back, for a moment and
            for a request that asks how the process is.
        """
        # Not super().__init__: it wants a Trio stream, and makes a lock and a timer.
        self.worker = worker
        self.app: AppWrapper = worker.app
        self.config: Config = worker.config
        self.context = worker
        self.limits = worker.limits.for_spare() if spare else worker.limits
        self.spare = spare
        self.state = ConnectionState(cast("Any", worker.state.copy()))
        self.transport = make_transport(self.lost)
        sock, family = self.transport.sock, self.transport.family
        self.client = parse_socket_addr(family, sock.getpeername())
        self.server = parse_socket_addr(family, sock.getsockname())
        self.task_group: Any = None  # Hypercorn's; streams are started in our nursery
        self.nursery = nursery
        self.http: GuardedH11 | GuardedH2 | None = None
        self.phase = Phase.HANDSHAKE
        self.live: set[GuardedStream] = set()
        self.requests = 0
        self.ending = False
        self._gone = False
        self._lingering = True
        self._due = inf
        self._reading = trio.CancelScope()

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
            records.connection_failed(self, group)
        finally:
            self.transport.close()
            # Reference cycles; without them the memory is back at once.
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
                await self._read()
                if not self.ending:
                    self.lost()
            if not self.ending:
                # Not if the last bytes waited for came just before the scope's end.
                if trio.current_time() >= self._due:
                    self._expired()
                self._reading = trio.CancelScope(deadline=self._due)
        if not self.transport.broken:
            self._hang_up()
            if self._lingering:
                await self.transport.linger()
            elif self.live or self.transport.pending:
                self.transport.finish_writing()  # closing says it to all others

    async def _read(self) -> None:
        """Read until the client's end, or ours."""
        if self.phase is Phase.HANDSHAKE:
            try:
                await self.transport.handshake()
            except (ssl.SSLError, OSError):
                self.intervened("handshake_failed")
                return
            self.await_within(Phase.HEAD, self.limits.head_read_s)
        if self.http is None:
            first = await self._first_bytes()
            if not first:
                return
            # Over TLS only ALPN decides (RFC 9113 3.2, 3.3).
            prior_knowledge = not self.transport.tls and first.startswith(PREFACE)
            http2 = self.transport.alpn == "h2" or prior_knowledge
            self.http = GuardedH2(self) if http2 else GuardedH11(self)
            await self.http.initiate()
            await self.http.received(first)
        while not self.ending:
            data = await self.transport.receive()
            if not data:
                return
            await self.http.received(data)

    async def _first_bytes(self) -> bytes:
        """Return enough bytes to tell HTTP/2's preface (RFC 9113 3.4) from HTTP/1."""
        data = b""
        while self.transport.alpn != "h2":
            more = await self.transport.receive()
            data += more
            if not more:
                return b""
            if len(data) >= len(PREFACE) or not PREFACE.startswith(data):
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
        self.intervened(EXPIRED[self.phase])
        if self.http is None:
            self.end(lingering=False)
        elif self.phase is Phase.IDLE:
            self.http.begin_drain()
            self.end(lingering=True)
        else:
            self.http.too_slow()

    # What the protocols and the transport call; all synchronous.

    def exchange_begins(self, stream: GuardedStream) -> None:
        """Start the application for `stream`."""
        self.live.add(stream)
        self.requests += 1
        self.worker.exchange_begins()
        self.nursery.start_soon(stream.run)
        if self._gone:  # found by the write of "100 Continue", just before
            stream.disconnect(stalled=self.transport.stalled)

    def exchange_ends(self, stream: GuardedStream) -> None:
        """Take note that the application's call has ended."""
        self.live.discard(stream)
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
        self._hang_up()
        self.end(lingering=False)
        if self.transport.broken:
            self.transport.abort()

    def _hang_up(self) -> None:
        for stream in list(self.live):
            try:
                stream.disconnect(stalled=self.transport.stalled)
            except Exception as exc:  # the neighbours must be told as well
                self.intervened("application_error")
                records.callback_failed(exc)

    def abort(self) -> None:
        """Close at once with a reset, and tell the live exchanges."""
        self.transport.abort()
        self.lost()

    def begin_drain(self) -> None:
        """Let live exchanges go on and refuse what is new."""
        if self.http is not None:
            self.http.begin_drain()

    def finish_drain(self) -> None:
        """Close if no exchange is live; otherwise its end will."""
        if not self.live:
            self.end(lingering=False)

    @property
    def last_request(self) -> bool:
        """Whether the response now written is to be this connection's last."""
        return (
            self.worker.draining or self.requests >= self.limits.requests_per_connection
        )

    def intervened(self, kind: Intervention) -> None:
        """Count an intervention."""
        self.worker.tally.interventions[kind] += 1

    async def protocol_send(self, event: Event) -> None:
        """Take bytes or the end from a Hypercorn protocol."""
        if isinstance(event, RawData):
            self.transport.push(event.data)
            await self.transport.breathe()
        elif isinstance(event, Closed):
            self.end(lingering=True)

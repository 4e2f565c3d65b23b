"""The transport, httpx's side of the connections, and the bodies of its responses.

    client = httpx.AsyncClient(transport=UpstreamTransport())

HTTP/1.1 only, by choice: one request per connection means that cancelling a request is
closing a socket, which upstream notices at once.

Bodies are the hot path of the gateway. One `receive` costs one schedule point, one
system call and one call of the C parser, whatever number of events has arrived; what
came with the head costs none of them.
"""

from __future__ import annotations

import enum
import math
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import httpx
import trio

from trio_ai_stream.upstream.transport.circuit import (
    Circuit,
    CircuitOpenError,
    CircuitState,
)
from trio_ai_stream.upstream.transport.dial import (
    Connect,
    Dialer,
    DialReport,
    Origin,
    Proxy,
    client_tls,
)
from trio_ai_stream.upstream.transport.http1_messages import (
    Headers,
    RequestMessage,
    ResponseHead,
    ResponseParser,
)
from trio_ai_stream.upstream.transport.pool import (
    OnSent,
    Pool,
    RequestTimeouts,
    TransportStatistics,
    UpstreamConnection,
)
from trio_ai_stream.upstream.transport.transport_errors import (
    ConnectionPhase,
    InvalidResponseError,
    UnexpectedEndError,
    cause_of,
    describe,
    reraise,
)
from trio_ai_stream.upstream.transport.transport_limits import TransportLimits


class _State(enum.Enum):
    READING = "reading"
    KEPT = "ended, connection kept"
    CLOSED = "ended, connection closed"
    ABORTED = "aborted"
    BROKEN = "broken"


class TransportBody(httpx.AsyncByteStream):
    """A response's body, read by one task at a time.

    It is httpx's response stream, and stands in `response.extensions["body"]` for who
    wants blocks without httpx's layers. It does not decode Content-Encoding.
    """

    __slots__ = ("_connection", "_first", "_parser", "_pool", "_read_s", "_state")

    def __init__(
        self, connection: UpstreamConnection, pool: Pool, *, first: bytes, read_s: float
    ) -> None:
        assert connection.parser is not None
        self._connection = connection
        self._parser: ResponseParser = connection.parser
        self._pool = pool
        self._first = first
        self._read_s = read_s
        self._state = _State.READING
        if self._parser.complete or self._parser.failure is not None:
            self._leave_connection()

    def __repr__(self) -> str:
        return f"<TransportBody {self._state.value}>"

    @property
    def trailers(self) -> Headers:
        """The trailer fields (RFC 9110, section 6.5), once the body has ended."""
        return self._parser.trailers

    @property
    def ended(self) -> bool:
        """Whether the end has been read; the connection is not this body's any more."""
        return self._state in (_State.KEPT, _State.CLOSED)

    async def receive(self) -> bytes:
        """Return one block: all that one read of the socket brought; b"" at the end.

        A block is never empty before the end, at most 16 KiB, and nothing is read
        ahead of it. Errors: `httpx.ReadError`, `ReadTimeout`, `RemoteProtocolError`;
        `StreamClosed` after an abort. Cancellation: the socket is closed before
        `Cancelled` leaves this method.
        """
        try:
            if self._first or self._state is not _State.READING:
                return await self._receive_ready()
            connection, parser = self._connection, self._parser
            while True:
                if self._read_s == math.inf:
                    await connection.link.wait()
                else:  # a scope for each read: the price of httpx's read budget
                    with trio.fail_after(self._read_s):
                        await connection.link.wait()
                data = connection.link.take()
                if data is None:
                    continue
                if data:
                    block = parser.feed(data)
                else:
                    parser.feed_end()
                    block = b""
                if parser.complete or parser.failure is not None:
                    self._leave_connection()
                if block or self._state is not _State.READING:
                    return block
        except Exception as exc:
            self.abort()
            reraise(exc, ConnectionPhase.READ)
        except BaseException:
            self.abort()
            raise

    async def drain(self) -> bool:
        """Read to the end; tell whether the connection is kept for the next request.

        The caller bounds it with a scope. Errors and cancellation: as `receive`.
        """
        while self._state is _State.READING:
            await self.receive()
        self._first = b""
        await trio.lowlevel.checkpoint()
        return self._state is _State.KEPT

    def abort(self) -> None:
        """Close the socket at once, unless the body has ended. Idempotent."""
        if self._state is _State.READING:
            self._state = _State.ABORTED
            self._pool.counters.aborts += 1
            self._pool.discard(self._connection)

    def __aiter__(self) -> TransportBody:
        """Iterate over the blocks; no generator, so nothing is left to finalise."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next block."""
        block = await self.receive()
        if not block:
            raise StopAsyncIteration
        return block

    async def aclose(self) -> None:
        """Abort, unless the body has ended: httpx's way to say it. Never waits."""
        self.abort()

    async def _receive_ready(self) -> bytes:
        if self._state is _State.ABORTED:
            raise httpx.StreamClosed
        if not self._first:
            await trio.lowlevel.checkpoint()
            if self._state is _State.BROKEN:
                raise InvalidResponseError(str(self._parser.failure))
            return b""
        # It came with the head, for which the task has just waited.
        await trio.lowlevel.checkpoint_if_cancelled()
        block, self._first = self._first, b""
        return block

    def _leave_connection(self) -> None:
        """Give the connection back, or close it: the body has ended or is damaged."""
        connection = self._connection
        if not self._parser.complete:
            # What came before the mistake is delivered; nothing more is read.
            self._state = _State.BROKEN
            self._pool.discard(connection)
            return
        self._parser.release()
        if connection.reusable and not self._pool.closed:
            self._state = _State.KEPT
            self._pool.release(connection)
        else:
            self._state = _State.CLOSED
            self._pool.discard(connection)


OnAbortable = Callable[[Callable[[], None] | None], None]
_CLOSED = (OSError, trio.BrokenResourceError, UnexpectedEndError)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """How a response's connection came about (`response.extensions["connection"]`)."""

    reused: bool
    served: int
    dial: DialReport


@dataclass(frozen=True, slots=True)
class TransportResponse:
    """A response's head, its body, and the connection it came on.

    httpx's own response costs a twentieth of a request's time, and holds more.
    """

    head: ResponseHead
    body: TransportBody
    connection: ConnectionInfo

    def field(self, name: bytes) -> str:
        """Return a field's values, `name` in lower case; empty if there is none."""
        found = [value for key, value in self.head.headers if key.lower() == name]
        return b", ".join(found).decode("latin-1")


def _ignore_abort(_abort: Callable[[], None] | None) -> None:
    """Stand in for a caller who does not want to close by himself."""


class UpstreamTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over Trio for one run, with keep-alive and Happy Eyeballs.

    A request is sent again, once and on a new connection, when a kept-alive connection
    turns out to be closed or dead before one byte of a response came, and sending twice
    does no harm: either the server has certainly read nothing of it, or its method is
    idempotent or it carries an Idempotency-Key, and its body can be sent from the start
    (RFC 9112, section 9.3.1; RFC 9110, section 9.2.2). Every other failure is the
    caller's to judge: `httpx.ConnectError` and `ConnectTimeout` mean that the server
    has read nothing, any other error that it may have.

    Making one without `ssl_context` reads the trusted certificates (tens of ms,
    blocking; `TrustError`): make it at start-up and share it. With `proxy` every
    connection is a tunnel through it.
    """

    def __init__(
        self,
        *,
        connect: Connect | None = None,
        proxy: Proxy | None = None,
        ssl_context: ssl.SSLContext | None = None,
        limits: TransportLimits | None = None,
    ) -> None:
        self._limits = limits or TransportLimits()
        if ssl_context is None and connect is None:
            ssl_context = client_tls()
        self._dialer = Dialer(
            self._limits, connect=connect, proxy=proxy, ssl_context=ssl_context
        )
        self._pool = Pool(self._limits)
        self._connecting = 0
        self._circuits: dict[Origin, Circuit] = {}  # of those that fail

    def __repr__(self) -> str:
        return (
            f"<UpstreamTransport idle={self._pool.idle} live={self._pool.live} "
            f"connecting={self._connecting}>"
        )

    @property
    def circuit(self) -> CircuitState:
        """Whether dials are made: the worst of all origins that fail."""
        states = {circuit.state for circuit in self._circuits.values()}
        if "open" in states:
            return "open"
        return "half-open" if "half-open" in states else "closed"

    def statistics(self) -> TransportStatistics:
        """Return a snapshot of the counters."""
        return TransportStatistics(
            **asdict(self._pool.counters),
            idle=self._pool.idle,
            live=self._pool.live,
            connecting=self._connecting,
            dns_threads=self._dialer.resolver.threads,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return httpx's response once its head is there.

        As `send`, whose last two arguments the extensions `on_sent` and `on_abortable`
        are. The body stands in `response.extensions["body"]`.
        """
        response = await self.send(
            origin_of(request.url),
            RequestMessage.of(request),
            RequestTimeouts.of(request),
            request.extensions.get("on_sent"),
            request.extensions.get("on_abortable", _ignore_abort),
        )
        head = response.head
        return httpx.Response(
            head.status,
            headers=head.headers,
            stream=response.body,
            extensions={
                "http_version": head.http_version,
                "reason_phrase": head.reason,
                "body": response.body,
                "connection": response.connection,
            },
        )

    async def send(
        self,
        origin: Origin,
        message: RequestMessage,
        timeouts: RequestTimeouts,
        on_sent: OnSent | None = None,
        on_abortable: OnAbortable = _ignore_abort,
    ) -> TransportResponse:
        """Send a message; return the response once its head is there.

        Errors: `httpx.TransportError`s, as `transport_errors.py` lists them; what the
        request's own body raises passes unchanged. Cancellation: the socket, at
        whatever stage, is closed before `Cancelled` leaves this method.

        `on_sent` is awaited before the first wait: when the request is on its way, or
        before a dial; so perhaps twice, if a kept-alive connection was of no use. What
        it raises fails the request.

        `on_abortable` is called with what closes the connection at once, when the
        request has one, and with None when its head is there or it has none any more:
        another request's may be next on it.
        """
        if self._pool.closed:
            raise RuntimeError("this transport is closed; make a new one")
        connection = self._pool.acquire(origin)
        if connection is not None:
            response = await self._try(
                connection, message, timeouts, on_abortable, on_sent
            )
            if response is not None:
                return response
            self._pool.counters.retries += 1
        if on_sent is not None:
            await on_sent()
        connection = await self._open(origin, timeouts)
        response = await self._try(connection, message, timeouts, on_abortable)
        assert response is not None  # only a reused connection may be given up
        return response

    async def reap_idle(self) -> None:
        """Close idle connections as they expire, though no request comes.

        Never returns: start it in a nursery that lives as long as the transport is
        used, or leave them to the next request. Cancellation: nothing is half done.
        """
        await self._pool.reap()

    async def aclose(self) -> None:
        """Close idle connections and abort live ones; whoever reads one is told."""
        self._pool.close()
        await trio.lowlevel.checkpoint()

    async def _open(
        self, origin: Origin, timeouts: RequestTimeouts
    ) -> UpstreamConnection:
        circuit = self._circuits.get(origin)
        try:
            probe = circuit is not None and circuit.enter()
        except CircuitOpenError as exc:
            reraise(exc, ConnectionPhase.CONNECT)
        self._connecting += 1
        try:
            steps: list[str] = []
            with trio.move_on_after(timeouts.connect_s) as patience:
                link, report = await self._dialer.dial(origin, steps)
            if patience.cancelled_caught:
                took = f"{timeouts.connect_s:g} s were over while {steps[-1]}"
                raise trio.TooSlowError(took)  # noqa: TRY301  mapped with the rest
        except Exception as exc:
            self._pool.counters.connect_failures += 1
            # Another's success may have put a new circuit in the place of ours.
            probe = probe and self._circuits.get(origin) is circuit
            self._note_failure(origin, exc, probe=probe)
            reraise(exc, ConnectionPhase.CONNECT)
        except BaseException:
            if circuit is not None:
                circuit.abandoned(probe=probe)
            raise
        finally:
            self._connecting -= 1
        if (circuit := self._circuits.pop(origin, None)) is not None:
            circuit.succeeded()
        connection = UpstreamConnection(origin, link, report)
        if self._pool.closed:
            connection.close()
            raise httpx.ConnectError("the transport was closed while connecting")
        self._pool.adopt(connection)
        return connection

    def _note_failure(self, origin: Origin, exc: Exception, *, probe: bool) -> None:
        """Count a failed dial towards opening the circuit, unless it is our own."""
        circuit = self._circuits.get(origin)
        if cause_of(exc).ours:
            if circuit is not None:
                circuit.abandoned(probe=probe)
            return
        if circuit is None:
            circuit = self._circuits[origin] = Circuit(self._limits.circuit_failures)
        circuit.failed(describe(exc), probe=probe)

    async def _try(
        self,
        connection: UpstreamConnection,
        message: RequestMessage,
        timeouts: RequestTimeouts,
        on_abortable: OnAbortable,
        on_sent: OnSent | None = None,
    ) -> TransportResponse | None:
        """Return the response, or None if the request should go out once more."""
        on_abortable(partial(self._pool.discard, connection))
        try:
            first = await connection.exchange(message, timeouts, self._limits, on_sent)
        except Exception as exc:
            closed = isinstance(exc, _CLOSED) and not connection.answered
            unread = closed and connection.took_nothing(exc)
            again = (
                closed
                and connection.served > 0
                and message.replayable
                and (unread or message.idempotent)
            )
            self._pool.discard(connection)
            if again:
                return None
            reraise(exc, ConnectionPhase.CONNECT if unread else connection.phase)
        except BaseException:
            self._pool.discard(connection)
            raise
        finally:
            on_abortable(None)
        return self._response(connection, first, timeouts)

    def _response(
        self, connection: UpstreamConnection, first: bytes, timeouts: RequestTimeouts
    ) -> TransportResponse:
        assert connection.parser is not None
        head = connection.parser.take_head()
        served = connection.served
        body = TransportBody(
            connection, self._pool, first=first, read_s=timeouts.read_s
        )
        info = ConnectionInfo(served > 0, served, connection.report)
        return TransportResponse(head, body, info)


def origin_of(url: httpx.URL) -> Origin:
    """Return where a request to `url` goes.

    :raises httpx.UnsupportedProtocol: it is no URL of HTTP, or its port is none.
    """
    scheme = url.scheme
    if scheme not in _PORTS or not url.host:
        raise httpx.UnsupportedProtocol(
            f"expected a URL with http:// or https:// and a host, got {scheme!r}"
        )
    port = _PORTS[scheme] if url.port is None else url.port
    if not 1 <= port <= 65535:
        # Of a larger one the system takes the lower 16 bits: the request, with its key,
        # would go to another server.
        raise httpx.UnsupportedProtocol(f"expected a port of 1 to 65535, got {port}")
    return Origin(scheme == "https", url.raw_host.decode("ascii"), port)

"""The body of a response: a block at a time, drained, or aborted.

This is the hot path of the gateway. One `receive` costs one schedule point, one system
call and one call of the C parser, whatever number of events has arrived; what came with
the head costs none of them.
"""

from __future__ import annotations

import enum
import math

import httpx
import trio

from trio_ai_stream.upstream.transport.parser import Headers, ResponseParser
from trio_ai_stream.upstream.transport.pool import Pool
from trio_ai_stream.upstream.transport.transport_errors import (
    ConnectionPhase,
    InvalidResponseError,
    reraise,
)
from trio_ai_stream.upstream.transport.upstream_connection import UpstreamConnection


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

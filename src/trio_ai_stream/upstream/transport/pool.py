"""Which connections are live, which are idle, and which idle one serves next.

All plain calls: a cancellation cannot land inside. Acquire and release take constant
time: each origin's idle connections form a stack, so the warmest is used first and the
surplus ages; one queue over all origins holds them in the order in which they went
idle, so the oldest is found at once. An expired connection is closed when the pool is
next touched, or by `reap`, which costs a request nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import trio

from trio_ai_stream.upstream.transport.dial import Origin
from trio_ai_stream.upstream.transport.transport_limits import TransportLimits
from trio_ai_stream.upstream.transport.upstream_connection import UpstreamConnection

# Between two looks at least: an expiry of nearly nothing must not keep a core busy.
_REST_S: Final = 1.0


@dataclass(slots=True)
class PoolCounters:
    """What has happened to connections so far."""

    connects: int = 0
    connect_failures: int = 0
    reuses: int = 0
    stale: int = 0
    expired: int = 0
    retries: int = 0
    aborts: int = 0


@dataclass(slots=True)
class TransportStatistics(PoolCounters):
    """What a transport holds now, and what it has done so far."""

    idle: int = 0
    live: int = 0
    connecting: int = 0
    dns_threads: int = 0


class Pool:
    """The connections of one transport."""

    __slots__ = ("_idle", "_limits", "_live", "_stacks", "closed", "counters")

    def __init__(self, limits: TransportLimits) -> None:
        self._limits = limits
        self._idle: OrderedDict[UpstreamConnection, None] = OrderedDict()
        self._stacks: dict[Origin, OrderedDict[UpstreamConnection, None]] = {}
        self._live: set[UpstreamConnection] = set()
        self.counters = PoolCounters()
        self.closed = False

    def __repr__(self) -> str:
        return f"<Pool idle={self.idle} live={self.live} closed={self.closed}>"

    @property
    def idle(self) -> int:
        """Connections that wait for their next request."""
        return len(self._idle)

    @property
    def live(self) -> int:
        """Connections that serve a request."""
        return len(self._live)

    def acquire(self, origin: Origin) -> UpstreamConnection | None:
        """Take the origin's warmest healthy connection, or None if there is none."""
        self._close_expired()
        while stack := self._stacks.get(origin):
            connection, _ = stack.popitem()
            self._forget_idle(connection)
            if connection.link.stale():
                self.counters.stale += 1
                connection.close()
                continue
            self.counters.reuses += 1
            self._live.add(connection)
            return connection
        return None

    def adopt(self, connection: UpstreamConnection) -> None:
        """Count a new connection as live."""
        self.counters.connects += 1
        self._live.add(connection)

    def release(self, connection: UpstreamConnection) -> None:
        """Take back a connection whose response has been read to its end."""
        self._live.discard(connection)
        connection.idle_since = trio.current_time()
        connection.served += 1
        self._idle[connection] = None
        self._stacks.setdefault(connection.origin, OrderedDict())[connection] = None
        self._close_expired()
        while len(self._idle) > self._limits.max_idle:
            self._close_oldest()

    def discard(self, connection: UpstreamConnection) -> None:
        """Close a live connection. Idempotent."""
        self._live.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close every connection, live ones too, and take back no more."""
        self.closed = True
        while self._idle:
            self._close_oldest()
        self.counters.aborts += len(self._live)
        for connection in tuple(self._live):
            self.discard(connection)

    async def reap(self) -> None:
        """Close idle connections as they expire, until cancelled.

        One that goes idle during the wait can't expire before it is over, so there is
        nothing to be woken for.
        """
        while True:
            now = trio.current_time()
            oldest = next(iter(self._idle), None)
            since = now if oldest is None else oldest.idle_since
            due = since + self._limits.keepalive_expiry_s
            await trio.sleep_until(max(due, now + _REST_S))
            self._close_expired()

    def _close_expired(self) -> None:
        expiry = trio.current_time() - self._limits.keepalive_expiry_s
        while self._idle:
            if next(iter(self._idle)).idle_since > expiry:
                return
            self.counters.expired += 1
            self._close_oldest()

    def _close_oldest(self) -> None:
        connection = next(iter(self._idle))
        del self._stacks[connection.origin][connection]
        self._forget_idle(connection)
        connection.close()

    def _forget_idle(self, connection: UpstreamConnection) -> None:
        del self._idle[connection]
        if not self._stacks[connection.origin]:
            del self._stacks[connection.origin]

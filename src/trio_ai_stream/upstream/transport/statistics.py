"""What a transport tells about its connections, and a response about its own."""

from __future__ import annotations

from dataclasses import dataclass

from trio_ai_stream.upstream.transport.dial import DialReport


@dataclass(frozen=True, slots=True)
class TransportStatistics:
    """What a transport holds now, and what it has done so far."""

    idle: int
    live: int
    connecting: int
    dns_threads: int
    connects: int
    connect_failures: int
    reuses: int
    stale: int
    expired: int
    retries: int
    aborts: int


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """How a response's connection came about (`response.extensions["connection"]`)."""

    reused: bool
    served: int
    dial: DialReport

"""Upstream connections: an httpx transport on Trio sockets with a C parser."""

from __future__ import annotations

from trio_ai_stream.upstream.transport.body import Body
from trio_ai_stream.upstream.transport.dial import Connect, DialReport
from trio_ai_stream.upstream.transport.limits import TransportLimits
from trio_ai_stream.upstream.transport.statistics import (
    ConnectionInfo,
    TransportStatistics,
)
from trio_ai_stream.upstream.transport.transport import Transport

__all__ = [
    "Body",
    "Connect",
    "ConnectionInfo",
    "DialReport",
    "Transport",
    "TransportLimits",
    "TransportStatistics",
]

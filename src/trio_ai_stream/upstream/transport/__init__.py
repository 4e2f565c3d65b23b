"""Upstream connections: an httpx transport on Trio sockets with a C parser."""

from __future__ import annotations

from trio_ai_stream.upstream.transport.dial import (
    Connect,
    DialReport,
    Origin,
    Proxy,
    TrustError,
    client_tls,
)
from trio_ai_stream.upstream.transport.pool import TransportStatistics
from trio_ai_stream.upstream.transport.transport_limits import TransportLimits
from trio_ai_stream.upstream.transport.upstream_transport import (
    ConnectionInfo,
    TransportBody,
    TransportResponse,
    UpstreamTransport,
)

__all__ = [
    "Connect",
    "ConnectionInfo",
    "DialReport",
    "Origin",
    "Proxy",
    "TransportBody",
    "TransportLimits",
    "TransportResponse",
    "TransportStatistics",
    "TrustError",
    "UpstreamTransport",
    "client_tls",
]

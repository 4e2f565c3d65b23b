"""What a client can do to a stream, and over which transports it can do it."""

from __future__ import annotations

import enum


class Act(enum.StrEnum):
    """One way for a client to end, or to stop taking, its stream."""

    FIN = "client_fin"
    RST = "client_rst"
    HALF_CLOSE = "client_half_close"
    RST_STREAM = "h2_rst_stream"
    # And the close behind it: GOAWAY alone lets live streams finish (RFC 9113 6.8).
    GOAWAY = "h2_goaway"
    STOP_READING = "client_stops_reading"


class Transport(enum.StrEnum):
    """How a client reaches a server."""

    H1 = "h1"
    H1_PIPELINED = "h1-pipelined"
    H1_TLS = "h1-tls"
    H2C = "h2c"
    H2_TLS = "h2-tls"

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self in (Transport.H1_TLS, Transport.H2_TLS)

    @property
    def http2(self) -> bool:
        """Whether the connection speaks HTTP/2."""
        return self in (Transport.H2C, Transport.H2_TLS)


def impossible(act: Act, transport: Transport) -> str | None:
    """Return why a transport cannot express an act, or ``None`` if it can."""
    if act in (Act.RST_STREAM, Act.GOAWAY) and not transport.http2:
        return "HTTP/1.1 has no such frame"
    if act is Act.HALF_CLOSE and transport.tls:
        return "a TLS connection cannot be half closed by TCP alone"
    return None

"""What one transport may hold, and for how long: every bound with its reason."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK_BYTES = 16_384
"""The most one socket read takes, so the most a receive() reads ahead.

It is what one stream may do before the next has its turn. Under saturation a newcomer
waits for so many turns of all others: 64 KiB made that wait twice as long and an event
a tenth cheaper (docs/performance.md). A TLS record holds as much (RFC 8446, 5.1).
"""

SEND_BYTES = 65_536
"""The most of a request that is sent at once."""


_AT_LEAST_ONE = {"max_head_bytes", "dns_threads", "circuit_failures"}


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """The bounds of one `UpstreamTransport`; the defaults suit one gateway worker.

    Sizes are bytes on the wire, times are seconds of the Trio clock. There is no cap
    on live connections: who may open one is decided by admission, before this layer.
    """

    max_idle: int = 256
    """Idle connections kept over all origins; the oldest goes first."""

    keepalive_expiry_s: float = 60.0
    """An idle connection older than this is closed rather than reused."""

    max_head_bytes: int = 65_536
    """Status line and headers, informational (1xx) responses before them included."""

    max_header_count: int = 256
    """Header lines of a response, and as many trailer lines again."""

    max_overhead_bytes: int = 16_384
    """Bytes in a row that carry no body: chunk extensions, trailers, padding."""

    happy_eyeballs_delay_s: float = 0.25
    """The head start of one address before the next is tried (RFC 8305, section 5)."""

    peer_timeout_s: float = 20.0
    """A peer that has confirmed nothing for this long is gone (TCP_USER_TIMEOUT)."""

    circuit_failures: int = 5
    """Failed dials in a row after which an origin is tried only now and then."""

    dns_ttl_s: float = 30.0
    """A DNS answer is used this long before asking again (getaddrinfo has no TTL)."""

    dns_stale_ttl_s: float = 3_600.0
    """An older answer still serves when DNS fails or hangs (RFC 8767)."""

    dns_patience_s: float = 1.8
    """How long to wait for DNS when an old answer is at hand (RFC 8767, section 5)."""

    dns_threads: int = 4
    """Threads that may be inside getaddrinfo at once, abandoned look-ups included."""

    def __post_init__(self) -> None:
        """Refuse a bound that could never be met, naming it."""
        for name in self.__slots__:
            value = getattr(self, name)
            least = 1 if name in _AT_LEAST_ONE else 0
            if value < least:
                raise ValueError(
                    f"TransportLimits.{name}: expected at least {least}, got {value}"
                )

"""Every bound that the server puts on a client, in one place.

A field's comment is its reason. Times are seconds (`_s`), sizes are bytes (`_bytes`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import trio

# Log, listeners, pollers, shared files, name look-ups, those kept back; and some room.
_OTHER_DESCRIPTORS: Final = 128
# Bytes a second: a line of 64 kbit/s.
SLOWEST_BODY: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one server; frozen."""

    # Nothing was acknowledged for this long: the client has stopped reading, and what
    # it holds (a stream, an upstream connection) is worth more to somebody else.
    write_stall_s: float = 15.0
    # From the first byte (of a fresh connection: from its accept) to the end of the
    # head; a head is a few hundred bytes, so only a slow loris needs longer.
    head_read_s: float = 15.0
    # From the head's end to the body's end, and as long again as the part of the body
    # that has come takes at the slowest rate: a prompt is small, and what is large may
    # come over a slow line as long as it comes.
    body_read_s: float = 15.0
    body_bytes_per_s: int = SLOWEST_BODY
    # TCP is up and the client has not finished its TLS handshake.
    tls_handshake_s: float = 10.0
    # Between two requests; browsers and pools come back within a minute.
    keep_alive_s: float = 60.0
    # How long a connection that we close may take to say that it has read the end;
    # closing with bytes unread would make the kernel destroy the response.
    linger_s: float = 1.0
    # Descriptors: each stream needs one more for its upstream connection.
    connections: int = 8192
    # Whether a client too many takes the place of the oldest that has no request under
    # way, instead of being refused.
    newest_first: bool = False
    # Upstream connections at a time, one for each stream.
    streams: int = 2000
    # Rebalances long-lived connections over workers and replicas.
    requests_per_connection: int = 1000
    # Request line and headers; the same for an HTTP/2 header list. Cookies of a whole
    # domain fit into 16 KiB, which is also what most proxies in front will pass.
    header_bytes: int = 16_384
    # Bytes of pipelined requests read ahead while a response is being written; reading
    # on is how the end of the connection is seen.
    read_ahead_bytes: int = 65_536
    # Bytes of a request body that wait for the application to take them.
    body_queue_bytes: int = 65_536
    # Bytes that wait in the kernel unsent (TCP_NOTSENT_LOWAT): with more, a client that
    # has stopped reading would be noticed megabytes later.
    unsent_bytes: int = 131_072
    # Bytes that wait in this process for one connection. Writers wait as soon as there
    # are any, so only answers to control frames can add up; past this it is an attack.
    pending_bytes: int = 1_048_576
    # Streams at a time on one HTTP/2 connection, as announced in SETTINGS.
    h2_streams: int = 128
    # Bytes of one HTTP/2 stream that outlive a cancelled send (its client's window was
    # closed); the rest of what a stream holds is the one message being sent.
    h2_buffered_bytes: int = 262_144
    # Streams of one HTTP/2 connection reset in `h2_budget_s`, by either side: rapid
    # reset (CVE-2023-44487) and made-you-reset (CVE-2025-8671) need thousands.
    h2_resets: int = 500
    # Frames in `h2_budget_s` that carry neither a request, nor data, nor credit.
    h2_control_frames: int = 5000
    h2_budget_s: float = 10.0
    # Body bytes that are read and dropped after an early response, so that a client
    # which is still uploading gets to read it.
    discard_bytes: int = 1_048_576
    # Live streams may go on for this long after SIGTERM; Kubernetes kills at 30 s.
    drain_s: float = 25.0
    # After the drain: the terminal events, and then the application's own shutdown.
    # Together with the interpreter's exit they stay below two seconds.
    terminal_events_s: float = 1.0
    # Those who acknowledge nothing for this long will not read them in the rest either;
    # it is twice a round trip to the other side of the world.
    terminal_events_stall_s: float = 0.5
    app_shutdown_s: float = 0.5
    # A burst of as many clients as there may be streams must not meet a full queue.
    backlog: int = 2048

    @property
    def descriptors(self) -> int:
        """File descriptors that a process under these bounds may come to need."""
        return self.connections + self.streams + _OTHER_DESCRIPTORS

    def for_spare(self) -> Limits:
        """Return those of a connection for which a reserved descriptor was taken."""
        return replace(
            self,
            # Whoever probes says what it wants at once; others must not fill the few.
            head_read_s=min(0.5, self.head_read_s),
            tls_handshake_s=min(1.0, self.tls_handshake_s),
            requests_per_connection=1,
        )


@dataclass(slots=True, eq=False)
class Budget:
    """How many events of one kind a client may cause in a span of time.

    A fixed window: `limit` events in `span_s`, then no more until it has passed.
    """

    limit: int
    span_s: float
    _spent: int = 0
    _until: float = 0.0

    def spend(self, count: int = 1) -> bool:
        """Count events; False once there have been too many."""
        now = trio.current_time()
        if now >= self._until:
            self._until = now + self.span_s
            self._spent = 0
        self._spent += count
        return self._spent <= self.limit

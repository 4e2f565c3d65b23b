"""What the guard has seen and done, for whoever exports it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Intervention = Literal[
    "application_error",
    "bad_request",
    "body_timeout",
    "connection_error",
    "connection_refused",
    "flood",
    "handshake_failed",
    "head_timeout",
    "idle_timeout",
    "pending_overflow",
    "stream_refused",
    "write_stall",
]


@dataclass(frozen=True, slots=True)
class Counters:
    """A snapshot; totals count from the start of the process."""

    connections_open: int
    connections_total: int
    exchanges_live: int
    exchanges_total: int
    interventions: Mapping[Intervention, int]
    workers_expected: int
    certificate_expires_at: float


class Tally:
    """The running counts of one worker."""

    __slots__ = (
        "certificate_expires_at",
        "connections_open",
        "connections_total",
        "exchanges_live",
        "exchanges_total",
        "interventions",
        "workers_expected",
    )

    def __init__(self) -> None:
        self.connections_open = 0
        self.connections_total = 0
        self.exchanges_live = 0
        self.exchanges_total = 0
        self.interventions: Counter[Intervention] = Counter()
        self.workers_expected = 1
        # Unix time; 0 without TLS.
        self.certificate_expires_at = 0.0

    def snapshot(self) -> Counters:
        """Return the counts as they are now."""
        return Counters(
            self.connections_open,
            self.connections_total,
            self.exchanges_live,
            self.exchanges_total,
            dict(self.interventions),
            self.workers_expected,
            self.certificate_expires_at,
        )

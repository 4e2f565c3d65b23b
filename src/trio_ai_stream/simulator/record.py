"""What the ledger knows about one request.

Times are kept on two clocks: `at` is `trio.current_time()` (virtual under MockClock),
`ns` is `time.monotonic_ns()`, which all processes of one host share, so that a cause
elsewhere and its effect here can be subtracted (facts C3). A time that was not
observed is absent, never zero.
"""

from __future__ import annotations

import array
from typing import Any, Literal, NamedTuple

from trio_ai_stream.simulator.steps import Phase

Mark = Literal[
    "head_received",  # the request's head is in
    "received",  # the request is complete
    "headers_sent",
    "first_token",
    "finish_sent",  # finish_reason, or the error, is sent
    "client_gone",
    "ended",
]
GoneHow = Literal["fin", "rst", "write_error"]
Outcome = Literal["live", "finished", "fault", "client_gone", "cancelled"]


class Stamp(NamedTuple):
    """One moment on Trio's clock and on the host's."""

    at: float
    ns: int


class Record:
    """One request, from its head to the end of its response.

    `events_sent` and `tokens_sent` count what the transport has taken in whole;
    `events_at_gone` and `events_after_gone` split them at the moment the client's
    going was noticed. `recent` holds the last sends, newest last.
    """

    def __init__(self, number: int, request_id: str | None, recent_sends: int) -> None:
        self.number = number  # counts from 1 over the simulator's life
        self.request_id = request_id
        self.attempt = 1  # of this request id
        self.generation_id = f"gen-{number:010d}"
        self.model: str | None = None
        self.stream = False
        self.status: int | None = None
        self.phase = Phase.RECEIVING
        self.outcome: Outcome = "live"
        self.marks: dict[Mark, Stamp] = {}
        self.events_sent = 0
        self.tokens_sent = 0
        self.bytes_sent = 0
        self.writes = 0
        self.gone_how: GoneHow | None = None
        self.gone_phase: Phase | None = None
        self.events_at_gone: int | None = None
        self._sends = array.array("q", bytes(16 * recent_sends))

    @property
    def client_gone_ns(self) -> int | None:
        """When the client's going was noticed, on the host's clock; else None."""
        stamp = self.marks.get("client_gone")
        return stamp.ns if stamp else None

    @property
    def events_after_gone(self) -> int | None:
        """Events whose send completed after the client's going was noticed."""
        if self.events_at_gone is None:
            return None
        return self.events_sent - self.events_at_gone

    @property
    def recent(self) -> list[tuple[int, int]]:
        """The last sends as (monotonic ns, events sent by then), oldest first."""
        slots = len(self._sends) // 2
        numbers = range(max(0, self.writes - slots), self.writes)
        at = [2 * (number % slots) for number in numbers]
        return [(self._sends[slot], self._sends[slot + 1]) for slot in at]

    def sent(self, size: int, events: int, tokens: int, ns: int) -> None:
        """Count one write that the transport has taken in whole."""
        self.events_sent += events
        self.tokens_sent += tokens
        self.bytes_sent += size
        slots = len(self._sends)
        if slots:
            slot = 2 * self.writes % slots
            self._sends[slot] = ns
            self._sends[slot + 1] = self.events_sent
        self.writes += 1

    def forget_departure(self) -> None:
        """Take back that the client has gone."""
        self.marks.pop("client_gone", None)
        self.gone_how = self.gone_phase = self.events_at_gone = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as `GET /stats` gives it."""
        flat: dict[str, Any] = {
            "number": self.number,
            "id": self.generation_id,
            "request_id": self.request_id,
            "attempt": self.attempt,
            "model": self.model,
            "stream": self.stream,
            "status": self.status,
            "phase": self.phase,
            "outcome": self.outcome,
            "finished": self.outcome == "finished",
            "events_sent": self.events_sent,
            "tokens_sent": self.tokens_sent,
            "bytes_sent": self.bytes_sent,
            "writes": self.writes,
            "gone_how": self.gone_how,
            "gone_phase": self.gone_phase,
            "events_at_gone": self.events_at_gone,
            "events_after_gone": self.events_after_gone,
            "recent_sends": self.recent,
        }
        for mark, stamp in self.marks.items():
            flat[f"{mark}_at"] = stamp.at
            flat[f"{mark}_ns"] = stamp.ns
        return flat

    def __repr__(self) -> str:
        return (
            f"<Record {self.number} {self.request_id} {self.phase} {self.outcome} "
            f"events={self.events_sent} gone={self.gone_how}>"
        )

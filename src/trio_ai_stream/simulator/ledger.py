"""The ledger: a bounded list of requests, and a way to wait for what happens to one.

Only synchronous bookkeeping, all in the Trio thread; `wait_for` is the one place that
waits, on an event, never by polling. Memory: `size` ended records, every live one, and
`size` request ids for counting attempts.

Times are kept on two clocks: `at` is `trio.current_time()` (virtual under MockClock),
`ns` is `time.monotonic_ns()`, which all processes of one host share, so that a cause
elsewhere and its effect here can be subtracted. A time that was not observed is
absent, never zero.
"""

from __future__ import annotations

import array
import collections
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import trio

from trio_ai_stream.simulator.faults import Faults
from trio_ai_stream.simulator.schedule import ResponsePhase
from trio_ai_stream.simulator.simulated_answer import price

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


class GenerationBill(NamedTuple):
    """What one answer costs, in tokens and dollars."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost: float
    provider: str


_PLAIN = (
    *("number", "request_id", "attempt", "model", "stream", "status", "phase"),
    *("outcome", "events_sent", "tokens_sent", "bytes_sent", "writes", "gone_how"),
    *("gone_phase", "events_at_gone", "events_after_gone"),
)


class LedgerRecord:
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
        self.faults = Faults()
        self.prompt_tokens = 0
        self.reasoning_tokens = 0  # of the whole answer; they come first
        self.status: int | None = None
        self.phase = ResponsePhase.RECEIVING
        self.outcome: Outcome = "live"
        self.marks: dict[Mark, Stamp] = {}
        self.events_sent = 0
        self.tokens_sent = 0
        self.bytes_sent = 0
        self.writes = 0
        self.gone_how: GoneHow | None = None
        self.gone_phase: ResponsePhase | None = None
        self.events_at_gone: int | None = None
        self._sends = array.array("q", bytes(16 * recent_sends))

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

    @property
    def bill(self) -> GenerationBill | None:
        """What the answer costs; None if there was none, or it has not ended."""
        if self.outcome == "live" or self.status != 200:
            return None
        more = self.faults.bill_more if self.outcome == "client_gone" else 0
        completion = self.tokens_sent + more
        return GenerationBill(
            self.prompt_tokens,
            completion,
            min(self.reasoning_tokens, completion),
            price(self.prompt_tokens, completion),
            self.faults.provider,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the record as `GET /stats` gives it."""
        flat: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        flat["id"] = self.generation_id
        flat["finished"] = self.outcome == "finished"
        bill = self.bill
        flat["bill"] = None if bill is None else bill._asdict()
        flat["recent_sends"] = self.recent
        for mark, stamp in self.marks.items():
            flat[f"{mark}_at"] = stamp.at
            flat[f"{mark}_ns"] = stamp.ns
        return flat


SIZE = 10_000  # about 20 MB of records when full
RECENT_SENDS = 16
Condition = Callable[[LedgerRecord], bool]


class Ledger:
    """Records each request; `now_ns` is the host clock, for tests another one."""

    def __init__(
        self,
        *,
        size: int = SIZE,
        recent_sends: int = RECENT_SENDS,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.now_ns = now_ns
        self.live: dict[int, LedgerRecord] = {}
        self.total = 0
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.events_sent = 0  # of ended requests
        self._ended: collections.deque[LedgerRecord] = collections.deque(maxlen=size)
        self._attempts: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._size = size
        self._recent_sends = recent_sends
        self._waiters: dict[trio.Event, tuple[str | None, Condition]] = {}
        self._found: dict[trio.Event, LedgerRecord] = {}

    def open(self, request_id: str | None) -> LedgerRecord:
        """Begin the record of a request whose head has arrived."""
        self.total += 1
        record = LedgerRecord(self.total, request_id, self._recent_sends)
        self.live[record.number] = record
        self.mark(record, "head_received")
        return record

    def attempt(self, key: str) -> int:
        """Count one more attempt under this key; the first is 1."""
        count = self._attempts.pop(key, 0) + 1
        self._attempts[key] = count
        if len(self._attempts) > self._size:
            self._attempts.popitem(last=False)
        return count

    def mark(
        self, record: LedgerRecord, mark: Mark, phase: ResponsePhase | None = None
    ) -> None:
        """Stamp the first time something happened to a record."""
        if mark not in record.marks:
            record.marks[mark] = Stamp(trio.current_time(), self.now_ns())
        if phase is not None:
            record.phase = phase
        self._notify(record)

    def sent(self, record: LedgerRecord, size: int, events: int, tokens: int) -> None:
        """Count one write of a record that the transport has taken in whole."""
        record.sent(size, events, tokens, self.now_ns())
        if self._waiters:
            self._notify(record)

    def gone(self, record: LedgerRecord, how: GoneHow) -> None:
        """Stamp the moment the client's going was noticed; the first notice counts.

        A write that fails as well takes the socket's error away from the reader, which
        then sees a FIN: it was a reset.
        """
        if "client_gone" in record.marks or record.outcome != "live":
            if (record.gone_how, how) == ("fin", "write_error"):
                record.gone_how = "rst"
            return
        record.gone_how = how
        record.gone_phase = record.phase
        record.events_at_gone = record.events_sent
        self.mark(record, "client_gone")

    def close(self, record: LedgerRecord, outcome: Outcome) -> None:
        """End a record; a client that left decides the outcome.

        Unless all was sent: a client may leave as soon as it has the last byte, and
        the reader may see that before the write returns. That is no departure.
        """
        if self.live.pop(record.number, None) is None:
            return
        if outcome == "finished":
            record.marks.pop("client_gone", None)
            record.gone_how = record.gone_phase = record.events_at_gone = None
        record.outcome = "client_gone" if "client_gone" in record.marks else outcome
        self.outcomes[record.outcome] += 1
        self.events_sent += record.events_sent
        self._ended.append(record)
        self.mark(record, "ended", ResponsePhase.ENDED)

    def find(
        self,
        *,
        request_id: str | None = None,
        generation_id: str | None = None,
        since: int = 0,
    ) -> list[LedgerRecord]:
        """Return the known records that match, oldest first; `since` is a number."""
        return [
            record
            for record in sorted(
                (*self._ended, *self.live.values()), key=lambda known: known.number
            )
            if record.number > since
            and (request_id is None or record.request_id == request_id)
            and (generation_id is None or record.generation_id == generation_id)
        ]

    def billed(self, generation_id: str) -> LedgerRecord | None:
        """Return the answer that `GET /generation` tells of; None: 404, so far."""
        for record in self.find(generation_id=generation_id):
            faults, stamp = record.faults, record.marks.get("ended")
            if record.bill is None or stamp is None or faults.bill == "never":
                return None
            due = stamp.at + faults.bill_ms / 1000
            return record if trio.current_time() >= due else None
        return None

    def reset(self) -> None:
        """Forget ended records, attempts and counts; live records stay."""
        self._ended.clear()
        self._attempts.clear()
        self.outcomes.clear()
        self.events_sent = 0

    def to_dict(self, records: Iterable[LedgerRecord]) -> dict[str, Any]:
        """Return the counters and these records as `GET /stats` gives them."""
        return {
            "live": len(self.live),
            "total": self.total,
            "outcomes": dict(self.outcomes),
            "events_sent": self.events_sent
            + sum(record.events_sent for record in self.live.values()),
            "now_ns": self.now_ns(),
            "requests": [record.to_dict() for record in records],
        }

    async def wait_for(self, request_id: str | None, mark: Mark) -> LedgerRecord:
        """Return the newest record of this request id once it has the mark.

        `None` stands for any request. Cancellation: nothing is left behind.
        """
        return await self.wait_until(request_id, lambda record: mark in record.marks)

    async def wait_until(
        self, request_id: str | None, condition: Condition
    ) -> LedgerRecord:
        """Return the newest record of this request id that satisfies the condition.

        The condition is asked after every change of a record, in the task that
        changes it: it must be cheap and must not raise. Cancellation: nothing is left.
        """
        for record in reversed(self.find(request_id=request_id)):
            if condition(record):
                await trio.lowlevel.checkpoint()
                return record
        event = trio.Event()
        self._waiters[event] = (request_id, condition)
        try:
            await event.wait()
            return self._found[event]
        finally:
            self._waiters.pop(event, None)
            self._found.pop(event, None)

    def _notify(self, record: LedgerRecord) -> None:
        for event, (request_id, condition) in list(self._waiters.items()):
            if request_id in (None, record.request_id) and condition(record):
                del self._waiters[event]
                self._found[event] = record
                event.set()

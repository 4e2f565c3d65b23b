"""What the routes work with: one object for each process, made in `app_factory.py`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from loguru import logger

from trio_ai_stream.admission.directory import StreamDirectory
from trio_ai_stream.admission.gate import Gate
from trio_ai_stream.billing.billing import Billing
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.resume.resumables import Resumables
from trio_ai_stream.server.worker import Worker
from trio_ai_stream.settings import Settings
from trio_ai_stream.stream.budgets import Budgets
from trio_ai_stream.stream.estimate import TokenEstimator
from trio_ai_stream.stream.registry import Generations, Registry
from trio_ai_stream.stream.retries import Retries
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.stream.timers import TimerQueue
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.telemetry.traces import Tracer
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.peer_link import PeerLink
from trio_ai_stream.wire.keys import KeyRing
from trio_ai_stream.wire.problems import Fault, Problem, Refused
from trio_ai_stream.wire.record import Record

SPENT: Final = Problem(
    503,
    "too_many_bodies",
    "the server holds as many bytes of requests as it may; try again later",
    Fault.SERVER,
    retryable=True,
    retry_after=1,
)


class BodyBudget:
    """Counts bodies from their arrival until nobody needs them.

    That is the end of the request, or for a stream the beginning of its answer.

    Bytes count as they arrive: what a head announces and never sends costs nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, context: RequestContext, size: int) -> None:
        """Count bytes that have arrived.

        :raises Refused: 503; there is no room for them.
        """
        if self.held + size > self.limit:
            raise Refused(SPENT)
        self.held += size
        context.body_bytes += size

    def hand_over(self, context: RequestContext) -> Callable[[], None]:
        """Count what a request held until that is called, which is idempotent."""
        size, context.body_bytes = context.body_bytes, 0
        return _Held(self, size)

    def give_back(self, context: RequestContext) -> None:
        """Count what a request held no longer; idempotent."""
        self.held -= context.body_bytes
        context.body_bytes = 0


class _Held:
    """What a stream's request holds; a closure would take four times the memory."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: BodyBudget, size: int) -> None:
        self._budget = budget
        self._size = size

    def __call__(self) -> None:
        size, self._size = self._size, 0
        self._budget.held -= size


# A subscriber costs four looks a second; one at 40 streams took 1.1 ms (27 us each).
# So this many cost a full worker 7 % of its time at the very most.
MAX_SUBSCRIBERS: Final = 16
# Ended streams that a subscriber keeps for its next tick; the oldest go first.
MAX_RECORDS: Final = 64


class Subscriber:
    """One client of the live view; `sees` says whose streams it may see."""

    def __init__(self, sees: Callable[[str], bool]) -> None:
        self.sees = sees
        self._ended: deque[Record] = deque(maxlen=MAX_RECORDS)

    def note(self, record: Record) -> None:
        """Keep the record of a stream that has ended, if it may be seen."""
        if self.sees(record.owner):
            self._ended.append(record)

    def take(self) -> list[Record]:
        """Return the records since the last call."""
        records = list(self._ended)
        self._ended.clear()
        return records


class Subscribers:
    """All subscribers of one process."""

    def __init__(self, limit: int = MAX_SUBSCRIBERS) -> None:
        self._limit = limit
        self._watchers: set[Subscriber] = set()

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def full(self) -> bool:
        """Whether there is no room for one more."""
        return len(self._watchers) >= self._limit

    @contextmanager
    def subscribe(self, subscriber: Subscriber) -> Iterator[Subscriber]:
        """Enter a subscriber for as long as the context lasts."""
        self._watchers.add(subscriber)
        try:
            yield subscriber
        finally:
            self._watchers.discard(subscriber)

    def stream_ended(self, record: Record) -> None:
        """Tell every subscriber that may know."""
        for subscriber in self._watchers:
            subscriber.note(record)


def ended_view(record: Record) -> dict[str, Any]:
    """Return what a subscriber is told of an ended stream; times in milliseconds."""
    return {
        "id": record.request_id,
        "endpoint": record.endpoint,
        "model": record.model,
        "outcome": record.outcome.value,
        "duration_ms": _ms(record.duration_s),
        "first_content_ms": _ms(record.first_content_s),
        "upstream_closed_ms": _ms(record.cancel_latency_s),
        "ending_ms": _ms(record.ending_s),
        "attempts": record.attempts,
        "events": record.events,
        "blocks": record.blocks,
        "bytes": record.bytes_out,
        "told": record.told,
        "finish_reason": record.finish_reason,
        **record.bill.fields(),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)


@dataclass(slots=True)
class Services:
    """The rooms behind the routes. `upstream` is there once the server has started.

    `request_ids` are those of the live requests: an id names one request, and so one
    stream, one permit and one entry in the log.
    """

    settings: Settings
    budgets: Budgets
    gate: Gate
    registry: Registry
    directory: StreamDirectory
    timer_queue: TimerQueue
    retries: Retries
    observe: Callable[[Record], None]
    metrics: Metrics
    estimator: TokenEstimator
    billing: Billing
    tracer: Tracer | None = None
    keys: KeyRing = field(default_factory=KeyRing)
    upstream: OpenRouter | None = None
    request_ids: set[str] = field(default_factory=set)
    subscribers: Subscribers = field(default_factory=Subscribers)
    generations: Generations = field(default_factory=Generations)
    peers: PeerLink = field(default_factory=partial(PeerLink, None))
    peer_listeners: list[Worker] = field(default_factory=list)
    bodies: BodyBudget = field(init=False)
    resumables: Resumables = field(init=False)
    # Methods, bound once: each stream holds both.
    on_close: Callable[[Stream, Record], None] = field(init=False)
    on_bill: Callable[[Record], None] = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        self.on_close, self.on_bill = self.stream_closed, self.stream_billed
        self.bodies = BodyBudget(settings.MAX_BODIES_BYTES)
        self.resumables = Resumables(
            self.directory.process,
            max_s=settings.GRACE_MAX_SECS,
            log_bytes=settings.GRACE_STREAM_BYTES,
            total_bytes=settings.GRACE_TOTAL_BYTES,
        )

    def stream_closed(
        self, stream: Stream, record: Record, traceparent: str | None = None
    ) -> None:
        """Tell all who want to know that a stream has ended."""
        self.registry.remove(stream)
        tells = [
            self.observe,
            self.metrics.stream_ended,
            self.subscribers.stream_ended,
            self.generations.stream_ended,
        ]
        if self.tracer is not None:
            tells.append(partial(self.tracer.stream_ended, traceparent=traceparent))
        for tell in tells:
            try:
                tell(record)
            except Exception:  # the others must be told as well
                logger.exception("an ending could not be told", event="callback_error")

    def stream_billed(self, record: Record) -> None:
        """Keep the bill of a stream, whatever becomes of that."""
        try:
            self.billing.stream_ended(record)
        except Exception:  # the stream ends all the same
            logger.exception("a bill could not be kept", event="callback_error")

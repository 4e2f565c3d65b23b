"""What the routes work with: one object for each process, made in `app_factory.py`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

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
from trio_ai_stream.stream.registry import Registry
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
    """One client of the live view; `owner` is whose streams it may see, None all."""

    def __init__(self, owner: str | None) -> None:
        self.owner = owner
        self._ended: deque[Record] = deque(maxlen=MAX_RECORDS)

    def sees(self, owner: str) -> bool:
        """Whether it may see this owner's streams."""
        return self.owner in {None, owner}

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


class Drain:
    """What the drain of a process waits for, and whom it tells: its `Drainable`.

    Streams, and readers that came through another process: the stream of such a reader
    may be a sibling's, and is lost to the reader when this process, between the two,
    ends.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def __len__(self) -> int:
        """Return how many streams live, or are read through other processes."""
        listeners = self._services.peer_listeners
        readers = sum(listener.exchanges for listener in listeners)
        return max(len(self._services.registry), readers)

    async def until_over(self) -> None:
        """Wait until no stream lives, and none is read from here."""
        while len(self):
            await self._services.registry.until_over()
            for listener in self._services.peer_listeners:
                await listener.until_quiet()

    def begin_drain(self) -> None:
        """Take no new streams from now on; those that live are read as before."""
        self._services.registry.begin_drain()

    def end_streams(self) -> bool:
        """Tell some live streams that the server goes away now, and whether not all."""
        return self._services.registry.end_streams()

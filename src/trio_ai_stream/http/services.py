"""What the routes work with: one object for each process, made in `app_factory.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from trio_ai_stream.admission.directory import StreamDirectory
from trio_ai_stream.admission.gate import Gate
from trio_ai_stream.http.body_budget import BodyBudget
from trio_ai_stream.http.watchers import Watchers
from trio_ai_stream.settings import Settings
from trio_ai_stream.stream.budgets import Budgets
from trio_ai_stream.stream.registry import Registry
from trio_ai_stream.stream.retries import Retries
from trio_ai_stream.stream.timers import TimerQueue
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.telemetry.traces import NullTracer, Tracer
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.wire.keys import KeyRing
from trio_ai_stream.wire.record import Record


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
    tracer: Tracer = field(default_factory=NullTracer)
    keys: KeyRing = field(default_factory=KeyRing)
    upstream: OpenRouter | None = None
    request_ids: set[str] = field(default_factory=set)
    watchers: Watchers = field(default_factory=Watchers)
    bodies: BodyBudget = field(init=False)

    def __post_init__(self) -> None:
        self.bodies = BodyBudget(self.settings.MAX_BODIES_BYTES)

"""One stream: its state, its one ending, and everything it holds.

Other tasks may call only the synchronous methods. `end` decides the ending: the first
cause wins, and the upstream connection is closed in the same step, whatever the relay
is doing at that moment. `close` is called by whatever encloses the whole request,
because a response body may never be entered.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

import msgspec
import trio

from trio_ai_stream.stream.budgets import Budgets
from trio_ai_stream.stream.estimate import TokenEstimator
from trio_ai_stream.stream.lifecycle import RULES, Ending, Event, State, follow
from trio_ai_stream.stream.protocols import UpstreamRequest, UpstreamResponse
from trio_ai_stream.stream.timers import StreamTimers
from trio_ai_stream.wire.events import Answer
from trio_ai_stream.wire.problems import Problem
from trio_ai_stream.wire.record import Outcome, Record, plain_word


@dataclass(slots=True, eq=False)
class Stream:
    """The state of one stream, from admission to its record."""

    request: UpstreamRequest
    budgets: Budgets
    _: KW_ONLY
    owner: str
    # Idempotent; called when the client is to be told the end, or by `close`.
    release_permit: Callable[[], None]
    forget_body: Callable[[], None]
    on_close: Callable[[Stream, Record], None]
    on_gap: Callable[[float], None]
    on_bill: Callable[[Record], None] | None  # None once the bill has been told
    estimator: TokenEstimator
    finishing: set[Stream]

    began_at: float = field(default_factory=trio.current_time)
    state: State = State.ADMITTED
    ending: Ending | None = None
    answer: Answer = field(default_factory=Answer)
    response: UpstreamResponse | None = None
    _abort: Callable[[], None] | None = None  # while there is no response yet
    stop_scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    # Whether nothing but its answer can be told any more: a document goes out.
    sealed: bool = False
    first_content_at: float | None = None
    upstream_closed_at: float | None = None
    delivered_at: float | None = None  # the last write of content
    attempts: int = 0
    events: int = 0
    blocks: int = 0
    bytes_out: int = 0
    told: bool = False
    _kept: Record | None = None  # what the bill was told with
    # Only a stream with a grace (`resume/`) sets these: how often a client came back,
    # since when it has had none, and for how long it had none before.
    resumes: int = 0
    detached_at: float | None = None
    detached_s: float = 0.0
    # For `snapshot.py` alone: the relay notes what it enters, once each.
    nursery: trio.Nursery | None = None
    timers: StreamTimers | None = None
    scopes: dict[str, trio.CancelScope] = field(init=False)
    rest_task: trio.lowlevel.Task | None = None

    def __post_init__(self) -> None:
        self.scopes = {"stop": self.stop_scope}

    @property
    def request_id(self) -> str:
        """The id that names this stream everywhere."""
        return self.request.request_id

    @property
    def endpoint(self) -> str:
        """The path that it was asked for at."""
        return self.request.dialect.path

    @property
    def shown_state(self) -> str:
        """Where it is, in a word for people.

        `detached` while nobody reads it; `finishing` while the rest of its answer is
        read.
        """
        if self.rest_task is not None:
            return "finishing"
        return self.state.value if self.detached_at is None else "detached"

    @property
    def completed(self) -> bool:
        """Whether the answer is whole."""
        return self.ending is not None and self.ending.outcome is Outcome.COMPLETED

    @property
    def cancel_latency_s(self) -> float | None:
        """From the cause of an early end to upstream's close; None if none was held.

        Zero if it was closed before: an attempt had failed, and a retry was waited for.
        """
        closed, ending = self.upstream_closed_at, self.ending
        if closed is None or ending is None or self.completed:
            return None
        return max(0.0, closed - ending.at)

    def __repr__(self) -> str:
        end = f" {self.ending.outcome}" if self.ending else ""
        return f"<Stream {self.request_id} {self.state}{end} events={self.events}>"

    def step(self, event: Event) -> None:
        """Follow the lifecycle table.

        :raises LifecycleError: when the table has no such step.
        """
        self.state = follow(self.state, event)

    def end(
        self, outcome: Outcome, *, problem: Problem | None = None, detail: str = ""
    ) -> bool:
        """Decide the ending, unless it is decided; closes upstream at once."""
        if self.ending is not None:
            return False
        rule = RULES[outcome]
        self.step(rule.event)
        now = trio.current_time()
        self.ending = Ending(outcome, now, problem or rule.problem, detail)
        if outcome is not Outcome.COMPLETED:
            self.release_upstream()
        return True

    def stop(
        self, outcome: Outcome, *, problem: Problem | None = None, detail: str = ""
    ) -> bool:
        """End the stream from outside; its client is still told.

        Not one that is sealed: its client gets the answer, so that is how it ends.
        """
        if self.sealed or not self.end(outcome, problem=problem, detail=detail):
            return False
        self.stop_scope.cancel(reason=outcome.value)
        return True

    def seal(self) -> None:
        """Let nothing but the loss of its client end the stream before its answer."""
        self.sealed = True
        self.scopes["deadline"].deadline = math.inf

    def attach_abort(self, abort: Callable[[], None] | None) -> None:
        """Take what closes the connection on which upstream is asked; None: let go."""
        self._abort = abort
        if self.ending is not None:
            self.release_upstream()

    def attach_response(self, response: UpstreamResponse) -> None:
        """Take over an open upstream connection; close it if the stream has ended."""
        self.response = response
        self.answer.generation_id = response.generation_id
        self.answer.opened = True
        if self.ending is not None:
            self.release_upstream()

    def release_upstream(self) -> None:
        """Close the upstream connection, if there is one; idempotent."""
        abort, self._abort = self._abort, None
        response, self.response = self.response, None
        if response is not None:
            abort = response.abort
        if abort is not None:
            abort()
            self.upstream_closed_at = trio.current_time()

    def release_body(self) -> None:
        """Let go of the request's body, which is not sent again; idempotent."""
        self.request.body = b""
        self.forget_body()

    def begin_rest(self) -> None:
        """Be seen, over as it is, while this task reads the rest of the answer."""
        self.rest_task = trio.lowlevel.current_task()
        self.finishing.add(self)

    def end_rest(self) -> None:
        """Be seen no longer."""
        self.finishing.discard(self)
        self.rest_task = None  # its frames hold this stream: a cycle

    def tell_bill(self) -> None:
        """Tell the bill, once, before the client is told of the end.

        Whoever has seen the end of its stream finds it in the ledger and on its budget.
        """
        on_bill, self.on_bill = self.on_bill, None
        if on_bill is not None:
            self._kept = self._record()
            on_bill(self._kept)

    def close(self, *, outcome: Outcome = Outcome.CLIENT_DISCONNECTED) -> None:
        """Release everything and record the outcome; idempotent, never awaits.

        `outcome` stands for whatever cut the stream off, if nothing had ended it yet.
        """
        if self.state is State.ENDED:
            return
        self.end(outcome)
        self.release_upstream()
        self.release_permit()
        self.release_body()
        self.tell_bill()
        self.step(Event.CLOSED)
        self.on_close(self, self._record())
        # The timers know the client, whose request holds this stream: a cycle.
        self.nursery = self.timers = None

    def cost_so_far(self) -> float:
        """Return the dollars that the stream has cost by now, as well as is known."""
        return self.estimator.cost_so_far(self.request, self.answer)

    def _record(self) -> Record:
        ending = self.ending
        assert ending is not None
        now = trio.current_time()
        if self._kept is not None:
            # Here stands each field that may change after `tell_bill`.
            return msgspec.structs.replace(
                self._kept,
                duration_s=now - self.began_at,
                cancel_latency_s=self.cancel_latency_s,
                ending_s=now - ending.at,
                told=self.told,
                resumes=self.resumes,
                detached_s=self.detached_s,
            )
        first = self.first_content_at
        return Record(
            request_id=self.request_id,
            endpoint=self.endpoint,
            owner=self.owner,
            model=self.request.model,
            streamed=not self.request.whole,
            outcome=ending.outcome,
            fault=ending.fault,
            detail=ending.detail,
            duration_s=now - self.began_at,
            first_content_s=None if first is None else first - self.began_at,
            cancel_latency_s=self.cancel_latency_s,
            ending_s=now - ending.at,
            attempts=self.attempts,
            events=self.events,
            blocks=self.blocks,
            bytes_out=self.bytes_out,
            told=self.told,
            finish_reason=plain_word(self.answer.finish_reason),
            generation_id=plain_word(self.answer.generation_id),
            bill=self.estimator.bill(
                self.request,
                self.answer,
                outcome=ending.outcome,
            ),
            user=self.request.user,
            resumes=self.resumes,
            detached_s=self.detached_s,
        )

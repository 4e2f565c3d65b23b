"""The life of a stream as a table, and how it ends: one `Outcome` each, as a table too.

Rule 1: `TABLE` alone decides which event may come in which state:
(state, event) -> state; a missing key is an error.
Rule 2: that table knows neither causes nor clocks; `RULES` says which event a cause is.

`LOST` may come in any state, because a client may leave at any time; once the stream is
ending, nothing but its end may follow. The README's diagram is made from the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from trio_ai_stream.wire.events import Item
from trio_ai_stream.wire.problems import INTERNAL, SHUTTING_DOWN, Fault, Problem
from trio_ai_stream.wire.record import Outcome


class State(StrEnum):
    """Where a stream is."""

    ADMITTED = "admitted"
    CONNECTING = "connecting"
    WAITING = "waiting"
    STREAMING = "streaming"
    ENDING = "ending"
    ENDED = "ended"


class Event(StrEnum):
    """What happens to a stream."""

    START = "start"
    OPENED = "opened"
    RETRY = "retry"
    CONTENT = "content"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"
    CLOSED = "closed"


class LifecycleError(RuntimeError):
    """Our bug: an event came in a state that has no room for it."""


TABLE: Final[dict[tuple[State, Event], State]] = {
    (State.ADMITTED, Event.START): State.CONNECTING,
    (State.CONNECTING, Event.OPENED): State.WAITING,
    (State.WAITING, Event.RETRY): State.CONNECTING,
    (State.WAITING, Event.CONTENT): State.STREAMING,
    (State.WAITING, Event.FINISHED): State.ENDING,
    (State.STREAMING, Event.FINISHED): State.ENDING,
    (State.ADMITTED, Event.FAILED): State.ENDING,
    (State.CONNECTING, Event.FAILED): State.ENDING,
    (State.WAITING, Event.FAILED): State.ENDING,
    (State.STREAMING, Event.FAILED): State.ENDING,
    (State.ADMITTED, Event.STOPPED): State.ENDING,
    (State.CONNECTING, Event.STOPPED): State.ENDING,
    (State.WAITING, Event.STOPPED): State.ENDING,
    (State.STREAMING, Event.STOPPED): State.ENDING,
    (State.ADMITTED, Event.LOST): State.ENDING,
    (State.CONNECTING, Event.LOST): State.ENDING,
    (State.WAITING, Event.LOST): State.ENDING,
    (State.STREAMING, Event.LOST): State.ENDING,
    (State.ENDING, Event.CLOSED): State.ENDED,
}


def follow(state: State, event: Event) -> State:
    """Return the state after `event`.

    :raises LifecycleError: when the table has no such step.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise LifecycleError(f"{event} is not possible in state {state}") from None


@dataclass(frozen=True, slots=True)
class Rule:
    """What an outcome means, in words for people and in data for the code."""

    event: Event
    cause: str
    client_sees: str
    upstream_sees: str
    problem: Problem | None


def _gateway(status: int, error_type: Outcome, message: str) -> Problem:
    return Problem(status, error_type, message, Fault.UPSTREAM, retryable=True)


_CLOSED: Final = "connection closed at once"
RULES: Final[dict[Outcome, Rule]] = {
    Outcome.COMPLETED: Rule(
        Event.FINISHED,
        "upstream finished: `[DONE]`, or every finish_reason and DONE_GRACE_SECS more",
        "`done` (finish_reason, usage)",
        "read to the end, connection reused; closed after the grace",
        None,
    ),
    Outcome.CLIENT_DISCONNECTED: Rule(
        Event.LOST,
        "client went away (FIN, RST, RST_STREAM, GOAWAY with an error)",
        "-",
        _CLOSED,
        None,
    ),
    Outcome.CLIENT_STALLED: Rule(
        Event.LOST,
        "client stopped reading for WRITE_TIMEOUT_SECS",
        "connection aborted",
        _CLOSED,
        None,
    ),
    Outcome.CANCELLED: Rule(
        Event.STOPPED,
        "cancel by id (`DELETE /streams/{id}`), or its key's budget is spent",
        "`error` cancelled, or budget_exhausted",
        _CLOSED,
        Problem(499, "cancelled", "the stream was cancelled on request"),
    ),
    Outcome.UPSTREAM_UNREACHABLE: Rule(
        Event.FAILED,
        "no connection in CONNECT_TIMEOUT_SECS",
        "`error` upstream_unreachable",
        "-",
        _gateway(502, Outcome.UPSTREAM_UNREACHABLE, "upstream could not be reached"),
    ),
    Outcome.FIRST_TOKEN_TIMEOUT: Rule(
        Event.FAILED,
        "no first content in FIRST_TOKEN_TIMEOUT_SECS",
        "`error` first_token_timeout",
        _CLOSED,
        _gateway(504, Outcome.FIRST_TOKEN_TIMEOUT, "upstream sent no content in time"),
    ),
    Outcome.STREAM_IDLE_TIMEOUT: Rule(
        Event.FAILED,
        "silence between chunks for STREAM_IDLE_TIMEOUT_SECS",
        "`error` stream_idle_timeout",
        _CLOSED,
        _gateway(504, Outcome.STREAM_IDLE_TIMEOUT, "upstream fell silent"),
    ),
    Outcome.DEADLINE_EXCEEDED: Rule(
        Event.FAILED,
        "whole stream longer than STREAM_DEADLINE_SECS",
        "`error` deadline_exceeded",
        _CLOSED,
        Problem(
            504,
            "deadline_exceeded",
            "the stream took longer than this server allows",
            Fault.SERVER,
        ),
    ),
    Outcome.UPSTREAM_REJECTED: Rule(
        Event.FAILED,
        "upstream answered 4xx or 5xx, or with an error and nothing else",
        "`error` with mapped code (`/v1`: true status)",
        "read, bounded; closed after an error under status 200",
        _gateway(502, Outcome.UPSTREAM_REJECTED, "upstream refused the request"),
    ),
    Outcome.UPSTREAM_FAILED: Rule(
        Event.FAILED,
        "upstream broke, sent an error chunk mid-stream, or its answer stopped short",
        "`error` upstream_failed, or upstream's own type",
        "closed",
        _gateway(502, Outcome.UPSTREAM_FAILED, "upstream failed in mid-stream"),
    ),
    Outcome.SHUTDOWN: Rule(
        Event.STOPPED,
        "server draining and its budget spent",
        "`error` shutting_down",
        _CLOSED,
        SHUTTING_DOWN,
    ),
    Outcome.INTERNAL_ERROR: Rule(
        Event.FAILED, "our bug", "`error` internal_error", _CLOSED, INTERNAL
    ),
    Outcome.ABANDONED: Rule(
        Event.STOPPED,
        "its `X-Stream-Grace` spent after a lost connection",
        "- (`error` abandoned, if it comes back too late)",
        _CLOSED,
        Problem(499, "abandoned", "nobody came back for the stream within its grace"),
    ),
}


@dataclass(frozen=True, slots=True)
class Ending:
    """Why one stream ended, decided once: the first cause wins.

    `at` is on Trio's clock. `problem` is what the client is told, if it still can be;
    `detail` is for the log and holds neither prompt nor content.
    """

    outcome: Outcome
    at: float
    problem: Problem | None
    detail: str = ""

    @property
    def fault(self) -> Fault | None:
        """Whose doing it was; None if the answer is whole."""
        if self.problem is not None:
            return self.problem.fault
        return None if self.outcome is Outcome.COMPLETED else Fault.CALLER


class EndStream(Exception):  # noqa: N818  it carries an ending, good or bad
    """Raised inside the relay: the stream ends with this outcome.

    `said` is what upstream told of its answer, where it failed before it was open.
    """

    def __init__(
        self,
        outcome: Outcome,
        *,
        problem: Problem | None = None,
        detail: str = "",
        said: Sequence[Item] = (),
    ) -> None:
        super().__init__(detail or outcome.value)
        self.outcome = outcome
        self.problem = problem
        self.detail = detail
        self.said = said

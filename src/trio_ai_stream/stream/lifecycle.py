"""The life of a stream as a table: (state, event) -> state; a missing key is an error.

Rule 1: whatever decides what may follow what stands in this table, nowhere else.
Rule 2: this file knows neither causes nor clocks; `outcome.py` says which event a cause
is.

`LOST` may come in any state, because a client may leave at any time; once the stream is
ending, nothing but its end may follow. The README's diagram is made from the table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


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

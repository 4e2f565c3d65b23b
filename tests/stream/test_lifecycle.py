"""The lifecycle table: every step that it has, and no other."""

from __future__ import annotations

import itertools

import pytest

from scripts.docs import endings_table, lifecycle_diagram
from trio_ai_stream.stream.lifecycle import (
    RULES,
    TABLE,
    Event,
    LifecycleError,
    State,
    follow,
)
from trio_ai_stream.wire.record import Outcome

EVERY = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), EVERY, ids=lambda value: str(value))
def test_a_step_is_in_the_table_or_an_error(state: State, event: Event) -> None:
    """A missing key is an error that names state and event."""
    if (state, event) in TABLE:
        assert follow(state, event) is TABLE[state, event]
    else:
        with pytest.raises(LifecycleError, match=f"{event}.*{state}"):
            follow(state, event)


@pytest.mark.parametrize("state", [s for s in State if s not in {"ending", "ended"}])
@pytest.mark.parametrize("event", [Event.LOST, Event.STOPPED, Event.FAILED])
def test_a_stream_may_be_cut_off_in_any_live_state(state: State, event: Event) -> None:
    """Leaving, stopping and our own bugs lead from each live state to its end.

    A step that were missing would keep the stream's permit for ever.
    """
    assert follow(state, event) is State.ENDING


def test_each_state_is_reached_and_only_ended_is_final() -> None:
    """No state is a dead end but the last, and none is out of reach."""
    reached, grown = {State.ADMITTED}, True
    while grown:
        more = {b for (a, _), b in TABLE.items() if a in reached} - reached
        reached |= more
        grown = bool(more)
    assert reached == set(State)
    assert {a for a, _ in TABLE} == set(State) - {State.ENDED}


def test_each_outcome_has_a_rule_whose_event_ends_a_stream() -> None:
    """The tables of outcomes and of steps agree."""
    assert set(RULES) == set(Outcome)
    for rule in RULES.values():
        assert TABLE[State.STREAMING, rule.event] is State.ENDING


def test_what_is_shown_has_every_row() -> None:
    """The diagram has each step, the table of endings each outcome."""
    assert len(lifecycle_diagram().splitlines()) == len(TABLE) + 5
    assert all(f"`{outcome}`" in endings_table() for outcome in Outcome)

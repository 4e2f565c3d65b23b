"""Which outcomes the sweep expects: exactly those that what was done can lead to."""

from __future__ import annotations

import anyio
import pytest
from msgspec.structs import replace

from tests.sweep.fidelity import wrong_outcome
from tests.sweep.judged import Judged
from tests.sweep.programs import program, quiet
from tests.sweep.scenario import TARGET
from tests.sweep.scenarios import SCENARIOS
from tests.sweep.world import World
from trio_ai_stream.wire.record import Outcome, Record
from trio_sweep.invariants import violations
from trio_sweep.run import run_once
from trio_sweep.token import Token


def _find(
    scenario: str, seed: int, causes: tuple[str, ...], outcome: Outcome, start: int = 0
) -> tuple[World, Judged]:
    """Return the first run that ends so with the last cause wherever it meets anything.

    Those before it are each at the first boundary where they do.
    """
    worlds: list[World] = []
    swept = program(SCENARIOS[scenario], worlds.append)
    acts: tuple[tuple[int, str], ...] = ()
    with quiet():
        for cause in causes:
            for k in range(start, 200):
                run = run_once(swept, Token(seed, (*acts, (k, cause))))
                world = worlds.pop()
                if any(act.at is None for act in run.acts):
                    continue
                if len(run.acts) < len(causes):
                    acts, start = ((k, cause),), k
                    break
                if _record(world).outcome is outcome:
                    assert violations(run, swept) == [], str(run.token)
                    return world, Judged.of(world, run)
    raise AssertionError(f"expected a run of {scenario} that ends as {outcome}")


def _record(world: World) -> Record:
    return next(one for one in world.records if one.request_id == TARGET)


def test_what_others_left_to_the_collector_is_no_runs():
    """As coredis leaves streams in memory, which say so when they are collected."""
    left: list[object] = [*anyio.create_memory_object_stream[int](1)]
    left.append(left)
    del left
    swept = program(SCENARIOS["finished-silent"])
    with quiet():
        run = run_once(swept, Token(2, ((20, "eof"),)))
    assert violations(run, swept) == []


@pytest.mark.parametrize(
    ("scenario", "seed", "causes", "start", "outcome", "otherwise"),
    [
        # The finish was in flight when upstream closed: it makes the answer whole.
        (
            "finished-silent",
            2,
            ("eof",),
            20,
            Outcome.COMPLETED,
            {"outcome": Outcome.UPSTREAM_FAILED},
        ),
        # The third attempt meets the 503 that a retry would have been for.
        (
            "retry",
            0,
            ("refuse", "connect"),
            0,
            Outcome.UPSTREAM_REJECTED,
            {"attempts": 2},
        ),
        # The budget's task ends the stream before that takes the cancel.
        ("budget-ends", 0, ("kill",), 60, Outcome.CANCELLED, {"detail": ""}),
    ],
)
def test_an_ending_by_another_way_is_expected_just_there(
    scenario, seed, causes, start, outcome, otherwise
):
    """It is right in this run, and wrong as soon as its reason is taken away."""
    world, judged = _find(scenario, seed, causes, outcome, start)
    record = _record(world)
    assert wrong_outcome(judged) is None
    world.records[world.records.index(record)] = replace(record, **otherwise)
    assert wrong_outcome(judged) is not None


def test_a_wait_for_a_retry_may_leave_too_little_time_for_the_first_content():
    """The budget ends the stream then, but at its own time alone."""
    ended = Outcome.FIRST_TOKEN_TIMEOUT
    world, judged = _find("slow-heartbeat", 0, ("error", "connect"), ended, 20)
    assert wrong_outcome(judged) is None
    assert world.decided_at is not None
    world.decided_at -= 1
    assert wrong_outcome(judged) is not None

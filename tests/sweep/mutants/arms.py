"""Three ways to look for a mutant, with the same number of runs.

`sweep`: every boundary, by rotating causes, then another schedule of one scenario, then
pairs of causes, then all causes.
`random`: the same scenarios and causes, at a random time of a random schedule.
`one-task`: a cancel of the request's own task at each of its own awaits, as tools for a
single coroutine do it; other tasks' steps are no boundaries to it.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from typing import Final

from tests.sweep.causes import CAUSES, Cause, Hit
from tests.sweep.injector import Injection
from tests.sweep.invariants import violations
from tests.sweep.mutants.verdict import Verdict
from tests.sweep.plan import PAIRS, QUICK, Plan
from tests.sweep.run import Run, quiet, run_once, run_scenario
from tests.sweep.scenario import TARGET
from tests.sweep.scenarios import SCENARIOS
from tests.sweep.sweep import NondeterminismError, Sweep
from tests.sweep.token import Token
from tests.sweep.world import World
from trio_ai_stream.wire.record import Outcome

ARMS: Final = ("sweep", "random", "one-task")
LADDER: Final = (
    QUICK,
    Plan(
        "another schedule",
        scenarios=("document-refused",),
        seeds=2,
        exact_seeds=True,
        causes=("disconnect",),
    ),
    Plan("pairs", scenarios=("plain", "late-end", "no-head"), causes=(), pairs=PAIRS),
    Plan("every cause", exact_seeds=True),
)


def judge(mutant: str, arm: str, budget: int) -> Verdict:
    """Search this process's program until something is wrong, or for so many runs."""
    search = {"sweep": _sweep, "random": _random, "one-task": _one_task}[arm]
    runs = 0
    with quiet():
        try:
            for run in search(budget):
                runs += 1
                found = violations(run)
                if found:
                    name, what = found[0]
                    return Verdict(
                        mutant=mutant,
                        arm=arm,
                        killed=True,
                        runs=runs,
                        invariant=name,
                        found=what[:200],
                        replay=str(run.token),
                    )
                if runs >= budget:
                    break
        except NondeterminismError as exc:
            return Verdict(
                mutant=mutant,
                arm=arm,
                killed=True,
                runs=runs + 2,  # the two that should have been one
                invariant="deterministic",
                found=str(exc)[:200],
            )
    return Verdict(mutant=mutant, arm=arm, killed=False, runs=runs)


def _sweep(budget: int) -> Iterator[Run]:
    for plan in LADDER:
        yield from Sweep(dataclasses.replace(plan)).runs()


def _random(budget: int) -> Iterator[Run]:
    """Run a cause at a time drawn uniformly from the undisturbed run's length."""
    dice = random.Random(0)
    lengths: dict[str, float] = {}
    for number in range(budget):
        name = dice.choice(list(SCENARIOS))
        if name not in lengths:
            base = run_once(Token(name, 0))
            lengths[name] = base.world.ended_at or 0.0
        at = dice.uniform(0, lengths[name])
        cause = dice.choice(list(CAUSES.values()))
        injection = Injection(-1, cause)
        scenario = SCENARIOS[name]
        yield run_scenario(scenario, Token(name, number), [injection], at_s=at)


def _call(world: World) -> Hit:
    world.client.scope.cancel(reason="one task")
    return world.client.scope


def _one_task(budget: int) -> Iterator[Run]:
    cause = Cause("call", _call, Outcome.CLIENT_DISCONNECTED, bound_s=0)
    for seed in range(budget):
        for name, scenario in SCENARIOS.items():
            token = Token(name, seed)
            base = run_once(token)
            yield base
            own = [k for k, (who, _) in enumerate(base.trace) if who == TARGET]
            for k in own:
                yield run_scenario(scenario, token, [Injection(k, cause)])

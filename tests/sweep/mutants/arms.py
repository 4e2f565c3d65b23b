"""Three ways to look for a mutant, with the same number of runs.

`sweep`: the quick sweep of all scenarios, one pair of causes, and then the full one.
`random`: the same scenarios and causes, at a random time of a random schedule.
`one-task`: a cancel of the request's own task at each of its own awaits, as tools for a
single coroutine do it; other tasks' steps are no boundaries to it.
"""

from __future__ import annotations

import functools
import gc
import random
from collections.abc import Iterator
from typing import Final

from tests.sweep.causes import CAUSES, Cause, carry_out
from tests.sweep.mutants.verdict import Verdict
from tests.sweep.programs import program, quiet
from tests.sweep.scenarios import SCENARIOS
from tests.sweep.sweeping import drained_and_killed, plans
from tests.sweep.world import World
from trio_sweep.engine import Sweep
from trio_sweep.invariants import Violation, violations
from trio_sweep.plan import Plan
from trio_sweep.program import CANCEL
from trio_sweep.run import Run, run_once
from trio_sweep.token import Token

ARMS: Final = ("sweep", "random", "one-task")


def judge(mutant: str, arm: str, budget: int) -> Verdict:
    """Search this process's program until something is wrong, or for so many runs."""
    with quiet():
        if arm == "sweep":
            return _sweep(mutant, budget)
        gc.collect()
        gc.freeze()
        search = _random if arm == "random" else _one_task
        runs = 0
        for name, run, found in search(budget):
            runs += 1
            if found:
                return _found(mutant, arm, runs, found[0], f"{name}:{run.token}")
            if runs >= budget:
                break
    return Verdict(mutant=mutant, arm=arm, killed=False, runs=runs)


def _found(mutant: str, arm: str, runs: int, what: Violation, replay: str) -> Verdict:
    invariant, text = what.invariant, what.text
    if invariant == "state":
        invariant, _, text = text.partition(": ")
    return Verdict(
        mutant=mutant,
        arm=arm,
        killed=True,
        runs=runs,
        invariant=invariant,
        found=text[:200],
        replay=replay,
    )


def _stages() -> Iterator[tuple[str, Plan]]:
    yield from plans(SCENARIOS).items()
    yield "late-end", drained_and_killed()
    yield from plans(SCENARIOS, full=True).items()


def _sweep(mutant: str, budget: int) -> Verdict:
    runs = 0
    for name, plan in _stages():
        plan.most_runs = budget - runs
        report = Sweep(program(SCENARIOS[name]), plan, name).run()
        runs += report.runs
        if report.findings:
            first = report.findings[0]
            what = Violation(first.invariant, first.text)
            return _found(mutant, "sweep", runs, what, f"{name}:{first.token}")
        if runs >= budget:
            break
    return Verdict(mutant=mutant, arm="sweep", killed=False, runs=runs)


def _random(budget: int) -> Iterator[tuple[str, Run, list[Violation]]]:
    """Run a cause at a time drawn uniformly from the undisturbed run's length."""
    dice = random.Random(0)
    lengths: dict[str, float] = {}
    for number in range(budget):
        name = dice.choice(list(SCENARIOS))
        scenario = SCENARIOS[name]
        worlds: list[World] = []
        if name not in lengths:
            run_once(program(scenario, worlds.append), Token(0))
            world = worlds.pop()
            lengths[name] = (world.ended_at or 0.0) - world.began_at
        at = dice.uniform(0, lengths[name])
        cause = dice.choice(list(CAUSES.values()))
        swept = program(scenario, functools.partial(_act_later, at, cause))
        run = run_once(swept, Token(number))
        yield name, run, violations(run, swept)


def _act_later(at: float, cause: Cause, world: World) -> None:
    world.later = (at, functools.partial(carry_out, cause, world))


def _one_task(budget: int) -> Iterator[tuple[str, Run, list[Violation]]]:
    for seed in range(budget):
        for name, scenario in SCENARIOS.items():
            swept = program(scenario)
            base = run_once(swept, Token(seed))
            yield name, base, violations(base, swept)
            for k, (who, _) in enumerate(base.seen.steps):
                if who == "body":
                    run = run_once(swept, Token(seed, ((k, CANCEL),)))
                    yield name, run, violations(run, swept, base)

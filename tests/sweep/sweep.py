"""The sweep: every boundary of every schedule of every scenario, by every cause.

Exhaustive means: for this program, this scenario and this seed. Nothing more is claimed
(docs/cancellation.md says why boundaries are enough).
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.sweep.causes import SCOPE
from tests.sweep.coverage import executed_lines
from tests.sweep.injector import State, Survey, Tag
from tests.sweep.invariants import violations
from tests.sweep.labels import Site
from tests.sweep.plan import QUIET_SEEDS, Plan
from tests.sweep.run import Run, run_once
from tests.sweep.scenario import TARGET
from tests.sweep.token import Token
from trio_ai_stream.tracing import internals

COLLECT_EVERY = 200  # runs between two collections of garbage


class NondeterminismError(RuntimeError):
    """Two runs of one token differed: nothing that follows would mean anything."""


@dataclass(slots=True)
class Violation:
    """One invariant that did not hold in one run."""

    token: Token
    invariant: str
    found: str


@dataclass(slots=True)
class Schedule:
    """One scenario under one seed."""

    scenario: str
    seed: int
    boundaries: int
    states: int = 0  # distinct states of the scenario, this seed's included
    fresh: int = 0  # of them, first seen under this seed


@dataclass(slots=True)
class Findings:
    """What a sweep came to."""

    runs: int = 0
    idle: int = 0  # acts that met nothing to act upon
    hung: int = 0
    depth2: int = 0
    schedules: list[Schedule] = field(default_factory=list)
    states: dict[str, set[State]] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    by_cause: Counter[tuple[str, str]] = field(default_factory=Counter)
    scopes: set[str] = field(default_factory=set)
    suspended: set[Site] = field(default_factory=set)
    executed: set[Site] = field(default_factory=set)
    violations: list[Violation] = field(default_factory=list)


class Sweep:
    """Carries out a plan; `each` is told of every run."""

    def __init__(self, plan: Plan, each: Callable[[Run], None] | None = None) -> None:
        self.plan = plan
        self.findings = Findings()
        self._each = each

    def run(self) -> Findings:
        """Sweep every scenario of the plan.

        :raises NondeterminismError: when a schedule does not repeat.
        """
        for done in self.runs():
            if self._each is not None:
                self._each(done)
        return self.findings

    def runs(self) -> Iterator[Run]:
        """Sweep, one run at a time; whoever has seen enough stops asking.

        :raises NondeterminismError: as `run`.
        """
        internals.self_test()
        for scenario in self.plan.scenarios:
            yield from self._sweep_scenario(scenario)

    def _sweep_scenario(self, scenario: str) -> Iterator[Run]:
        """Sweep seeds until no state is new."""
        known = self.findings.states.setdefault(scenario, set())
        quiet = 0
        for seed in range(self.plan.seeds):
            before = len(known)
            survey = Survey()
            base = self._survey(Token(scenario, seed), survey)
            schedule = Schedule(scenario, seed, len(base.trace))
            self.findings.schedules.append(schedule)
            yield base
            for token in self._tokens(base, survey):
                yield self._one(token, base)
            schedule.states, schedule.fresh = len(known), len(known) - before
            quiet = 0 if schedule.fresh else quiet + 1
            if quiet >= QUIET_SEEDS and not self.plan.exact_seeds:
                break

    def _survey(self, token: Token, survey: Survey) -> Run:
        """Run without a cause, twice; both must step alike."""
        with executed_lines(self.findings.executed):
            base = run_once(token, survey=survey)
        again = run_once(token)
        if base.trace != again.trace:
            raise NondeterminismError(
                f"{token}: two undisturbed runs differ at boundary "
                f"{_first_difference(base.trace, again.trace)}"
            )
        for sites in survey.sites:
            self.findings.suspended |= sites
        for scopes in survey.scopes:
            self.findings.scopes.update(scopes)
        self._count(base)
        return base

    def _tokens(self, base: Run, survey: Survey) -> Iterator[Token]:
        """Every run of one schedule; the second acts depend on the first one's run."""
        scenario, seed = base.token.scenario, base.token.seed
        for k in range(len(base.trace)):
            for cause in self.plan.causes_at(k, seed, scenario):
                yield Token(scenario, seed, ((k, cause),))
            if self.plan.by_scope:
                for label in survey.scopes[k]:
                    yield Token(scenario, seed, ((k, SCOPE + label),))
        if seed == 0:
            for k in range(len(base.trace)):
                for first, second in self.plan.pairs:
                    yield from self._second_acts(base.token, k, first, second)

    def _second_acts(
        self, base: Token, k: int, first: str, second: str
    ) -> Iterator[Token]:
        alone = run_once(Token(base.scenario, base.seed, ((k, first),)))
        if alone.injections[0].hit is False:
            return
        for j in range(k + 1, len(alone.trace)):
            yield Token(base.scenario, base.seed, ((k, first), (j, second)))

    def _one(self, token: Token, base: Run) -> Run:
        run = run_once(token)
        k = token.acts[0][0]
        if run.trace[:k] != base.trace[:k]:
            raise NondeterminismError(
                f"{token}: differs from the undisturbed run at boundary "
                f"{_first_difference(run.trace, base.trace)}, before it acts"
            )
        self._count(run)
        return run

    def _count(self, run: Run) -> None:
        findings = self.findings
        findings.runs += 1
        findings.depth2 += len(run.token.acts) > 1
        findings.hung += bool(run.injector.hung)
        if findings.runs % COLLECT_EVERY == 0:
            gc.collect()
        for injection in run.injections:
            if injection.at is None or injection.hit is False:
                findings.idle += 1
            elif injection.state is not None:
                findings.states[run.token.scenario].add(injection.state)
                for _, sites, fate in injection.state:
                    findings.verdicts[fate] += 1
                    findings.suspended.update(sites)
        mine = [one for one in run.world.records if one.request_id == TARGET]
        if run.injections:
            cause = run.injections[0].cause.name
            cause = SCOPE if cause.startswith(SCOPE) else cause
            findings.by_cause[
                cause, mine[0].outcome.value if mine else "no stream"
            ] += 1
        findings.violations += [
            Violation(run.token, name, what) for name, what in violations(run)
        ]


def _first_difference(one: list[Tag], two: list[Tag]) -> int:
    pairs = zip(one, two, strict=False)
    differing = (number for number, (a, b) in enumerate(pairs) if a != b)
    return next(differing, min(len(one), len(two)))

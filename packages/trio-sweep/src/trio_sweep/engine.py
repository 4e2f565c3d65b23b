"""The sweep: every boundary of every schedule, by every cause.

Exhaustive means: for this program and these seeds. Nothing more is claimed.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import trio

from trio_sweep import internals, resources
from trio_sweep.coverage import await_sites, classify, files_of
from trio_sweep.errors import MisuseError, SweepInterruptedError, TokenError
from trio_sweep.injector import Boundary, State, Step, Survey
from trio_sweep.invariants import Violation, violations
from trio_sweep.parallel import spread
from trio_sweep.places import Site
from trio_sweep.plan import Acts, Plan, Scopes
from trio_sweep.program import (
    CANCEL,
    SCOPE,
    Cause,
    Program,
    World,
    causes_by_name,
)
from trio_sweep.report import Finding, Report, Schedule
from trio_sweep.run import MOST_STEPS, Run, run_once
from trio_sweep.token import MOST_ACTS, Token

MOST_SEEDS: Final = 32
_self_test = functools.cache(internals.self_test)  # once in a process
Progress = Callable[[int, int, int], None]  # seed, groups of runs done, and of all


@dataclass(slots=True)
class Outcome:
    """What is kept of a run: plain values, which another process can send."""

    token: Token
    found: list[Violation]
    idle: int  # acts that met nothing
    landed: list[str]  # the causes of the others
    hung: bool
    states: list[State]
    sites: frozenset[Site]
    place: str
    later: list[Boundary]  # from the first act on, if a second one may follow
    steps: list[Step] | None = None  # if they differ from the undisturbed ones


def sweep(
    body: Callable[..., Awaitable[object]],
    *,
    world: World | None = None,
    after: Callable[..., Awaitable[object]] | None = None,
    check: Callable[..., Iterable[str] | str | None] | None = None,
    observe: Callable[..., str | None] | None = None,
    causes: Iterable[Cause] = (),
    scopes: Scopes = True,
    seeds: int | None = None,
    pairs: bool = False,
    allow: Mapping[str, str] | None = None,
    packages: Collection[str] = (),
    excuses: Mapping[str, str] | None = None,
    shield_limit_s: float = float("inf"),
    settle_s: float = 0.0,
    jobs: int = 1,
    name: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run `body` once for every boundary and cause, in virtual time; return a report.

    `body` is an async function of what `world` yields; `world` is a function that
    returns a new async context manager for each run, or None: then `body` takes
    nothing. The body is cancelled by a scope around it and by each scope inside that
    `scopes` allows (True, False, or patterns of labels). Then `check` returns
    complaints, if it has any, and `after` must work. `causes` are other things that may
    happen. With `pairs` all ordered pairs of causes are swept too, for the first seed.
    `allow` maps an invariant, or `invariant:pattern of its text`, to a reason;
    `packages` are those whose await sites are counted.

    :raises MisuseError: when the sweep would prove nothing.
    :raises RunFailedError: when a run could not be made, as when a cause raises.
    :raises SweepInterruptedError: at Ctrl-C, with what was found until then.
    :raises TrioChangedError: on a version of Trio that is not known here.
    """
    program = Program(
        body,
        world,
        after,
        check,
        observe,
        causes_by_name(causes),
        shield_limit_s=shield_limit_s,
        settle_s=settle_s,
    )
    plan = Plan(seeds, scopes, pairs, jobs, allow or {}, packages, excuses or {})
    title = name or str(getattr(body, "__qualname__", body))
    return Sweep(program, plan, title, progress).run()


class Sweep:
    """One sweep of a program."""

    def __init__(
        self,
        program: Program,
        plan: Plan,
        name: str,
        progress: Progress | None = None,
    ) -> None:
        self.program = program
        self.plan = plan
        self.report = Report(name)
        self.report.allowed = {key: (why, 0) for key, why in plan.allow.items()}
        self._progress = progress or (lambda _seed, _done, _all: None)
        self._sites = await_sites(files_of(plan.packages))
        if plan.packages and not self._sites:
            named = ", ".join(plan.packages)
            raise MisuseError(
                f"expected packages with an await; {named}: there is none"
            )
        self.states: set[State] = set()
        self.met: set[Site] = set()  # where an act met a suspended task
        self.executed: set[Site] = {(site.path, 0) for site in self._sites}
        self._kinds: dict[tuple[str, str], Finding] = {}
        self._survey = Survey(labels=bool(plan.scopes))
        self._stop = threading.Event()

    @property
    def labels(self) -> set[str]:
        """The labels of the body's scopes that stood open and were not cancelled."""
        return {label for labels in self._survey.known.values() for label in labels}

    def run(self) -> Report:
        """Sweep; see `sweep`."""
        if trio.lowlevel.in_trio_run():
            raise MisuseError(
                "expected to be called from outside of Trio: it calls run"
            )
        _self_test()
        if not resources.CAN_SEE_DESCRIPTORS:
            self.report.unmeasured.append("descriptors")
        try:
            with resources.undisturbed(self._stop):
                self._sweep()
        except KeyboardInterrupt:
            self.report.interrupted = True
            self._finish()
            raise SweepInterruptedError(self.report) from None
        self._finish()
        return self.report

    def _sweep(self) -> None:
        self._once(Token(0))  # caches fill, modules load: this run is not judged
        gc.collect()
        gc.freeze()  # what it filled is no run's either
        quiet, first = 0, None
        for seed in range(self.plan.seeds or MOST_SEEDS):
            before = len(self.states)
            base = self._undisturbed(Token(seed))
            if base is None:
                return
            first = first or base
            schedule = Schedule(seed, len(base.seen.steps))
            self.report.schedules.append(schedule)
            if not self._enough():
                self._sweep_seed(base)
            schedule.fresh = len(self.states) - before
            quiet = 0 if schedule.fresh else quiet + 1
            self.report.saturated = quiet >= self.plan.quiet_seeds
            if self.plan.seeds is None and self.report.saturated:
                break
            if self._enough():
                return
        assert first is not None
        if not self._kinds:
            self._refuse_if_idle()
        again = self._once(first.token)
        if again.seen.steps != first.seen.steps:
            text = (
                "the undisturbed run is another one after all the others: state leaks"
            )
            self._differ(first.token, text, first.seen.steps, again.seen.steps)
        self._confirm()

    def _refuse_if_idle(self) -> None:
        """Refuse a sweep that found nothing because it did not do what it was told."""
        landed = self.report.landed
        if not landed:
            raise MisuseError("no act ever landed: nothing was tried")
        if self.plan.choose is not None:
            return
        unused = [one for one in self.program.causes if not landed[one]]
        if unused:
            raise MisuseError(f"these causes never met anything: {', '.join(unused)}")
        labels = [one.removeprefix(SCOPE) for one in landed if one.startswith(SCOPE)]
        idle = [
            pattern
            for pattern in self.plan.patterns
            if not any(fnmatchcase(label, pattern) for label in labels)
        ]
        if idle:
            raise MisuseError(f"no scope was met that is called {', '.join(idle)}")

    def _once(self, token: Token, **options: Any) -> Run:
        return run_once(self.program, token, stopping=self._stop.is_set, **options)

    def _undisturbed(self, token: Token) -> Run | None:
        """Survey a seed; both runs must step alike. None: there is no use to go on."""
        executed = self.executed if self._sites else None
        base = self._once(token, survey=self._survey, executed=executed)
        self._take(self._judge(base, None))
        if base.seen.hung or base.error is not None or base.escaped is not None:
            return None
        if not base.seen.steps:
            raise MisuseError(
                f"{self.report.name} never waits: there is no boundary at which a"
                " cancel could land"
            )
        again = self._once(token)
        if base.seen.steps != again.seen.steps:
            text = "two undisturbed runs differ"
            self._differ(token, text, base.seen.steps, again.seen.steps)
            if "deterministic" not in self.plan.allow:
                return None
        return base

    def _differ(
        self, token: Token, text: str, one: list[Step], other: list[Step]
    ) -> None:
        found = Violation("deterministic", text)
        self._count(Outcome(token, [found], 0, [], False, [], frozenset(), "", []))
        shown = self.report.traces is not None or "deterministic" in self.plan.allow
        if one != other and not shown:
            self.report.traces = _lines_of(one), _lines_of(other)

    def _sweep_seed(self, base: Run) -> None:
        """Try one act at each boundary; then, of the first seed, every second act."""
        seed = base.token.seed
        seconds: list[Token] = []
        for outcome in self._try(base, self._followed_by(seed, (), base.seen.survey)):
            acts = outcome.token.acts
            seconds += self._followed_by(seed, acts, outcome.later)
        for _ in self._try(base, seconds):
            pass

    def _followed_by(
        self, seed: int, acts: Acts, boundaries: Iterable[Boundary]
    ) -> list[Token]:
        """Return the tokens with one act more, at each of these boundaries."""
        return [
            Token(seed, (*acts, (k, cause)))
            for k, boundary in enumerate(boundaries, acts[0][0] if acts else 0)
            for cause in self._causes(acts, boundary)
        ]

    def _causes(self, acts: Acts, boundary: Boundary) -> Iterable[str]:
        scopes = [SCOPE + one for one in boundary.labels if self.plan.wants(one)]
        possible = [*boundary.causes, *scopes]
        if self.plan.choose is None:
            return possible
        return self.plan.choose(acts, boundary, possible)

    def _try(self, base: Run, tokens: list[Token]) -> Iterator[Outcome]:
        """Run these tokens, count what they come to, and yield it in their order."""
        work = functools.partial(self._outcome, base, tokens)
        results = spread(
            work, len(tokens), self.plan.jobs, lambda number: f"run {tokens[number]}"
        )
        for done, outcome in enumerate(results, 1):
            self._take(outcome, base)
            self._progress(base.token.seed, done, len(tokens))
            yield outcome
            if self._enough():
                break

    def _enough(self) -> bool:
        most = self.plan.most_runs
        return most is not None and (bool(self._kinds) or self.report.runs >= most)

    def _outcome(self, base: Run, tokens: list[Token], number: int) -> Outcome:
        token, survey = tokens[number], None
        if self.plan.pairs and token.seed == 0 and len(token.acts) < MOST_ACTS:
            k = token.acts[0][0]
            labels = self._survey.labels
            survey = Survey(k, labels, known=self._survey.known)
        return self._judge(self._beside(base, token, survey=survey), base)

    def _beside(self, base: Run, token: Token, **options: Any) -> Run:
        most = 1_000 + 10 * base.seen.count
        return self._once(token, most_steps=min(MOST_STEPS, most), **options)

    def _judge(self, run: Run, base: Run | None) -> Outcome:
        differ = None
        if base is not None:
            k = run.token.acts[0][0]
            if run.seen.steps[:k] != base.seen.steps[:k]:
                differ = run.seen.steps
        landed = [act for act in run.acts if act.landed]
        return Outcome(
            run.token,
            violations(run, self.program, base),
            len(run.acts) - len(landed),
            [act.cause for act in landed],
            bool(run.seen.hung),
            [act.state for act in landed if act.state],
            frozenset(site for act in landed for site in act.sites),
            "; ".join(_place(act.state) for act in landed),
            [] if run.seen.hung or not landed else run.seen.survey,
            differ,
        )

    def _take(self, outcome: Outcome, base: Run | None = None) -> None:
        """Count a run."""
        report = self.report
        report.runs += 1
        report.with_two_acts += len(outcome.token.acts) > 1
        report.idle += outcome.idle
        report.hung += outcome.hung
        report.landed.update(outcome.landed)
        self.met |= outcome.sites
        for state in outcome.states:
            self.states.add(state)
            report.fates.update(fate for _, _, fate in state)
        self._count(outcome)
        if outcome.steps is not None and base is not None:
            text = "a run differs from the undisturbed one before its act"
            self._differ(outcome.token, text, base.seen.steps, outcome.steps)

    def _count(self, outcome: Outcome) -> None:
        """Sort what was found by kind, and keep the shortest token of each."""
        for found in sorted(set(outcome.found)):
            if (key := self.allowance(found)) is not None:
                reason, runs = self.report.allowed[key]
                self.report.allowed[key] = reason, runs + 1
                continue
            known = self._kinds.get(found.kind)
            if known is None:
                self._kinds[found.kind] = Finding(
                    found.invariant, found.text, str(outcome.token), outcome.place
                )
                continue
            known.runs += 1
            if outcome.token.size < Token.parse(known.token).size:
                known.text, known.token = found.text, str(outcome.token)
                known.place = outcome.place

    def allowance(self, found: Violation) -> str | None:
        """Return the key under which this violation is allowed, if it is."""
        for key in self.plan.allow:
            invariant, colon, pattern = key.partition(":")
            if found.invariant == invariant and (
                not colon or fnmatchcase(found.text, pattern)
            ):
                return key
        return None

    def _confirm(self) -> None:
        """Run the token of each finding once more: it must find the same."""
        for kind, finding in list(self._kinds.items()):
            if finding.invariant in ("deterministic", "undisturbed"):
                continue
            token = self._shrunk(kind, finding)
            again = {one.invariant for one in self.replayed(token)[1]}
            if finding.invariant not in again:
                self._differ(token, f"{finding.invariant} is not found again", [], [])

    def _shrunk(self, kind: tuple[str, str], finding: Finding) -> Token:
        """Leave out an act, if the other alone finds the same; return the token.

        A sweep that was thinned out, or stopped early, has not tried each alone.
        """
        token = Token.parse(finding.token)
        for act in token.acts if len(token.acts) > 1 else ():
            alone = Token(token.seed, (act,))
            with contextlib.suppress(TokenError):  # without the other it meets nothing
                run, found = self.replayed(alone)
                same = [one.text for one in found if one.kind == kind]
                if same:
                    finding.text, finding.token = same[0], str(alone)
                    finding.place = _place(run.acts[0].state)
                    return alone
        return token

    def replayed(self, token: Token, **options: Any) -> tuple[Run, list[Violation]]:
        """Run a token, and the undisturbed run that it is compared with.

        :raises TokenError: when the token means no run of this program.
        """
        _self_test()
        self._once(Token(token.seed))  # caches fill, as in a sweep
        base = self._once(Token(token.seed))
        for _, cause in token.acts:
            if cause not in {CANCEL, *self.program.causes} and not (
                cause.startswith(SCOPE)
            ):
                known = ", ".join((CANCEL, f"{SCOPE}LABEL", *self.program.causes))
                raise TokenError(f"expected a cause of {known}; got {cause!r}")
        if token.acts and token.acts[0][0] >= len(base.seen.steps):
            raise TokenError(
                f"{token} acts at boundary {token.acts[0][0]}, but seed {token.seed}"
                f" has only {len(base.seen.steps)}: 0 to {len(base.seen.steps) - 1}"
            )
        run = self._beside(base, token, survey=Survey(places=True), **options)
        for act in run.acts:
            if not act.landed and act.k >= len(run.seen.steps):
                raise TokenError(
                    f"{token} acts at boundary {act.k}, but the body had ended after"
                    f" {len(run.seen.steps)}"
                )
            if not act.landed:
                there = ", ".join(run.seen.survey[act.k].labels) or "none"
                raise TokenError(
                    f"{act.cause} met nothing at boundary {act.k};"
                    f" scopes there: {there}"
                )
        found = violations(run, self.program, base if token.acts else None)
        before = token.acts[0][0] if token.acts else None
        if run.seen.steps[:before] != base.seen.steps[:before]:
            text = "the run differs from the undisturbed one, and no act is the reason"
            found.append(Violation("deterministic", text))
        return run, found

    def _finish(self) -> None:
        report = self.report
        report.states = len(self.states)
        if self._sites:
            report.coverage = classify(
                self._sites, self.met, self.executed, self.plan.excuses
            )
            for stale in () if report.interrupted else report.coverage.stale:
                text = f"{stale!r} excuses no await site that was not met"
                self._kinds["excuse", stale] = Finding("excuse", text, "0", "")
        report.findings = list(self._kinds.values())


def _place(state: State) -> str:
    """Name who was met, those first that a cancel reached."""
    order = ("delivered", "deferred", "refused", "shielded", "spared")
    ranked = sorted(state, key=lambda one: order.index(one[2]))
    return ", ".join(f"{name} at {place} ({fate})" for name, place, fate in ranked[:3])


def _lines_of(steps: list[Step]) -> list[str]:
    return [f"{who} {at:.3f} s" for who, at in steps]

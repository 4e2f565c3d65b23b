"""The sweep of all scenarios: how it is thinned out, and what it came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from tests.sweep.causes import CAUSES, cause_of_scope
from tests.sweep.excuses import EXCUSES, SWEPT
from tests.sweep.invariants import LATE
from tests.sweep.programs import program, quiet
from tests.sweep.scenarios import SCENARIOS
from trio_sweep import MisuseError, Report
from trio_sweep.coverage import Coverage, await_sites, classify, files_of
from trio_sweep.engine import Sweep
from trio_sweep.injector import Boundary
from trio_sweep.places import Site
from trio_sweep.plan import Acts, Choose, Plan
from trio_sweep.program import SCOPE

SCOPES: Final = ("trio_ai_stream/*",)
ALLOWED: Final = {
    f"state:I3 one terminal event: {LATE}*": (
        "the scope of the terminal event was cancelled: nobody could be told in no time"
    ),
    f"state:I8 pool whole: {LATE}*": (
        "the scope of the clean-up was cancelled: nothing could be read in no time"
    ),
    "resource-warning:Unclosed <MemoryObject*": (
        "coredis leaves two of anyio's streams open when it cannot connect"
    ),
}
_QUIET_SEEDS: Final = 6


class Choice:
    """Thins sweeps out: a boundary whose state was met before teaches little.

    Of the causes that are possible, the one that was tried least often is tried first:
    in this state, in any scenario; and then at all.
    """

    def __init__(self) -> None:
        self._tried: Counter[tuple[object, ...]] = Counter()

    def quick(self, scenario: str) -> Choose:
        """Try one cause in each state of the request, and what is always wanted.

        The latter also in each state of the whole run, if the scenario says `beside`.
        """
        one, met, met_beside = SCENARIOS[scenario], set[int](), set[int]()

        def choose(
            acts: Acts, boundary: Boundary, possible: Sequence[str]
        ) -> Iterable[str]:
            state, beside = boundary.body, boundary.state
            if state in met and (beside in met_beside or not one.beside):
                return ()
            known = _known(possible)
            wanted = [
                cause
                for cause in known
                if any(fnmatchcase(cause, each) for each in one.always)
            ]
            if state not in met:
                wanted = [*self._least(acts, known, state), *wanted]
            met.add(state)
            met_beside.add(beside)
            return dict.fromkeys(wanted)

        return choose

    def full(self) -> Choose:
        """Try every cause in each state, and after it a second one.

        The whole run's states count for causes, the request's own for its scopes and
        for what follows a first cause.
        """
        met = set[tuple[object, ...]]()

        def is_new(*what: object) -> bool:
            known = what in met
            met.add(what)
            return not known

        def choose(
            acts: Acts, boundary: Boundary, possible: Sequence[str]
        ) -> Iterable[str]:
            known = _known(possible)
            if not acts:
                states = {False: boundary.state, True: boundary.body}
                return [
                    one for one in known if is_new(one, states[one.startswith(SCOPE)])
                ]
            first = acts[0][1]
            if first.startswith(SCOPE) or not is_new(first, boundary.body, "again"):
                return ()
            return self._least(acts, known, boundary.body)

        return choose

    def _least(self, acts: Acts, possible: Sequence[str], state: int) -> Iterable[str]:
        """Return the cause whose turn it is."""
        first = acts[0][1] if acts else ""

        def turns(cause: str) -> tuple[int, int]:
            return self._tried[first, state, cause], self._tried[first, cause]

        mine = min(possible, key=turns)
        self._tried.update([(first, state, mine), (first, mine)])
        return (mine,)


def _known(possible: Sequence[str]) -> list[str]:
    """Leave out the scopes that the program itself never cancels so."""
    return [
        one
        for one in possible
        if not one.startswith(SCOPE) or cause_of_scope(one.removeprefix(SCOPE))
    ]


def plans(scenarios: Iterable[str], *, full: bool = False) -> dict[str, Plan]:
    """Return the plan of each scenario.

    Quick: one cause in each state, mostly one seed. Full: every cause in each state,
    twice; pairs of causes; seeds until many in a row meet no new state.
    """
    choice = Choice()
    return {
        name: Plan(
            None if full else SCENARIOS[name].seeds,
            SCOPES,
            full,
            choose=choice.full() if full else choice.quick(name),
            quiet_seeds=_QUIET_SEEDS,
            allow=ALLOWED,
            packages=SWEPT,
        )
        for name in scenarios
    }


def drained_and_killed() -> Plan:
    """Return a plan of one pair: a drain begins in each state, then a kill in each."""
    met = set[tuple[int, int]]()

    def choose(acts: Acts, boundary: Boundary, _all: Sequence[str]) -> Iterable[str]:
        state = len(acts), boundary.body
        if state in met:
            return ()
        met.add(state)
        return ("kill",) if acts else ("begin-drain",)

    return Plan(1, False, True, choose=choose)


@dataclass(slots=True)
class Findings:
    """What a sweep of several scenarios came to."""

    reports: dict[str, Report] = field(default_factory=dict)
    met: set[Site] = field(default_factory=set)
    executed: set[Site] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)  # of the scopes that stood open

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return all(report.clean for report in self.reports.values())

    @property
    def landed(self) -> Counter[str]:
        """Acts that met something, by cause."""
        found: Counter[str] = Counter()
        for report in self.reports.values():
            found += report.landed
        return found

    @property
    def fates(self) -> Counter[str]:
        """What cancels did to tasks."""
        found: Counter[str] = Counter()
        for report in self.reports.values():
            found += report.fates
        return found

    @property
    def waived(self) -> Counter[str]:
        """Violations that are allowed, in runs by key."""
        found: Counter[str] = Counter()
        for report in self.reports.values():
            found.update({key: runs for key, (_, runs) in report.allowed.items()})
        return +found

    def coverage(self) -> Coverage:
        """Return the await sites of the swept rooms by what became of them."""
        sites = await_sites(files_of(SWEPT))
        return classify(sites, self.met, self.executed, EXCUSES)

    def violations(self) -> list[str]:
        """Return each kind of violation, with its shortest token."""
        return [
            f"{name}:{one.token}: {one.invariant}: {one.text} ({one.runs} runs)"
            for name, report in self.reports.items()
            for one in report.findings
        ]


def sweep_all(
    plans: dict[str, Plan],
    findings: Findings | None = None,
    over: Callable[[str, Sweep], None] = lambda _name, _sweep: None,
) -> Findings:
    """Carry out a plan for each scenario; `findings` are filled as it goes on.

    `over` is called after each.

    :raises MisuseError: without a scenario, or when a cause never met anything.
    :raises SweepInterruptedError: at Ctrl-C.
    """
    found = Findings() if findings is None else findings
    with quiet():
        for name, plan in plans.items():
            sweep = Sweep(program(SCENARIOS[name]), plan, name)
            found.reports[name] = sweep.report
            sweep.run()
            found.met |= sweep.met
            found.executed |= sweep.executed
            found.labels |= {one for one in sweep.labels if sweep.plan.wants(one)}
            over(name, sweep)
    if not found.reports:
        raise MisuseError("expected at least one scenario; got none")
    unused = [name for name in CAUSES if not found.landed[name]]
    if unused and len(plans) == len(SCENARIOS) and found.clean:
        raise MisuseError(f"these causes never met anything: {', '.join(unused)}")
    return found


def text_of(findings: Findings) -> str:
    """Return the whole report: no clock, no path, so two sweeps give the same bytes."""
    reports = findings.reports.values()
    boundaries = sum(one.boundaries for report in reports for one in report.schedules)
    rows = [("scenario", "seeds", "boundaries", "runs", "states")]
    rows += [
        (
            name,
            str(len(report.schedules)),
            str(sum(one.boundaries for one in report.schedules)),
            str(report.runs),
            str(report.states),
        )
        for name, report in findings.reports.items()
    ]
    landed = sorted(
        (SCOPE if name.startswith(SCOPE) else name, count)
        for name, count in findings.landed.items()
    )
    by_cause: Counter[str] = Counter()
    for name, count in landed:
        by_cause[name] += count
    coverage = findings.coverage()
    reachable = len(coverage.covered) + len(coverage.missed)
    violations = findings.violations()
    lines = [
        f"{len(rows) - 1} scenarios, {boundaries} boundaries,"
        f" {sum(report.runs for report in reports)} runs"
        f" ({sum(report.with_two_acts for report in reports)} with two acts,"
        f" {sum(report.idle for report in reports)} acts met nothing),"
        f" {sum(report.states for report in reports)} states",
        "",
        *_table(rows),
        "",
        "acts by cause: " + ", ".join(f"{n} {c}" for n, c in by_cause.items()),
        "what they did to each task: "
        + ", ".join(
            f"{fate} {count}" for fate, count in sorted(findings.fates.items())
        ),
        f"await sites: an act landed at {len(coverage.covered)} of {reachable}; at"
        f" {len(coverage.unwaited)} more nobody ever waited, {len(coverage.excused)}"
        " are excused",
        *(f"  missed: {one}" for one in coverage.missed),
        *(f"allowed {key} ({n} runs)" for key, n in sorted(findings.waived.items())),
        "",
        *(f"VIOLATED {one}" for one in violations),
    ]
    return "\n".join(lines if violations else [*lines, "no invariant was violated"])


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]

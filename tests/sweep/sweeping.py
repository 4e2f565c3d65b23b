"""The sweep of all scenarios: how it is thinned out, and what it came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.sweep.causes import CAUSES, cause_of_scope
from tests.sweep.excuses import EXCUSES, SWEPT
from tests.sweep.programs import program, quiet
from tests.sweep.scenarios import SCENARIOS
from trio_sweep import MisuseError, Report
from trio_sweep.coverage import Coverage, await_sites, classify, files_of
from trio_sweep.engine import Acts, Choose, Plan, Progress, Sweep
from trio_sweep.places import Site
from trio_sweep.program import SCOPE

SCOPES: Final = ("trio_ai_stream/*",)
ALLOWED: Final = {
    "resource-warning:Unclosed <MemoryObject*": (
        "coredis drops queues unclosed when a cancel meets its connecting; they are"
        " memory of this process alone"
    )
}
_NUMBERS: Final = {name: number for number, name in enumerate(SCENARIOS)}
_AFTER_SCOPES: Final = 8  # every so many boundaries, a second act follows a scope's


def rotating(scenario: str) -> Choose:
    """Try one cause at a boundary, and those that its scenario always wants.

    Each scenario begins with another cause: their first boundaries are the same steps
    of the program, which so meet every cause.
    """

    every, always = SCENARIOS[scenario].every, SCENARIOS[scenario].always

    def choose(_acts: Acts, k: int, possible: Sequence[str]) -> Iterable[str]:
        if k % every:
            return ()
        mine = possible[(k // every + _NUMBERS[scenario]) % len(possible)]
        return dict.fromkeys((mine, *always))

    return choose


def every_cause(acts: Acts, k: int, possible: Sequence[str]) -> Iterable[str]:
    """Try every cause first; and after it, at each boundary, the next one.

    So all ordered pairs of causes come about, at the same boundary too, but not each
    pair at each pair of boundaries.
    """
    possible = [
        one
        for one in possible
        if not one.startswith(SCOPE) or cause_of_scope(one.removeprefix(SCOPE))
    ]
    if not acts:
        return possible
    first_k, first = acts[0]
    if first.startswith(SCOPE) and (k - first_k) % _AFTER_SCOPES:
        return ()
    known = ["cancel", *CAUSES]
    turn = known.index(first) if first in known else 0
    return (possible[(turn + 3 * k + first_k) % len(possible)],)


def alternating(scenario: str) -> Choose:
    """Try the same, but only at every other boundary: in the next scenario the others.

    Their first boundaries are the same steps, so each of these is still tried in half
    of the scenarios.
    """
    rotate, number = rotating(scenario), _NUMBERS[scenario]
    every = SCENARIOS[scenario].every

    def choose(acts: Acts, k: int, possible: Sequence[str]) -> Iterable[str]:
        return () if (k // every + number) % 2 else rotate(acts, k, possible)

    return choose


def sampled(scenario: str) -> Plan:
    """Return the plan of the test suite: one cause at every other boundary."""
    choose = alternating(scenario)
    return Plan(1, False, choose=choose, allow=ALLOWED, packages=SWEPT)


def quick(scenario: str, seeds: int | None = 1) -> Plan:
    """Return the short plan by hand: one cause a boundary."""
    choose = rotating(scenario)
    return Plan(seeds, False, choose=choose, allow=ALLOWED, packages=SWEPT)


def full(_scenario: str, seeds: int | None = None) -> Plan:
    """Return the long plan: causes, scopes, pairs, seeds until no state is new."""
    return Plan(seeds, SCOPES, True, choose=every_cause, allow=ALLOWED, packages=SWEPT)


@dataclass(slots=True)
class Findings:
    """What a sweep of several scenarios came to."""

    reports: dict[str, Report] = field(default_factory=dict)
    met: set[Site] = field(default_factory=set)
    executed: set[Site] = field(default_factory=set)

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
    progress: Progress | None = None,
) -> Findings:
    """Carry out a plan for each scenario; `findings` are filled as it goes on.

    :raises MisuseError: without a scenario, or when a cause never met anything.
    :raises SweepInterruptedError: at Ctrl-C.
    """
    found = Findings() if findings is None else findings
    with quiet():
        for name, plan in plans.items():
            sweep = Sweep(program(SCENARIOS[name]), plan, name, progress)
            found.reports[name] = sweep.report
            sweep.run()
            found.met |= sweep.met
            found.executed |= sweep.executed
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

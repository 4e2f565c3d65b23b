"""A sweep's findings as text: no clock, no path, so two sweeps give the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tests.sweep.coverage import AwaitSite, Coverage, classify
from tests.sweep.plan import Plan
from tests.sweep.sweep import Findings

SHOWN = 40  # violations in full; the rest are counted


def report(plan: Plan, findings: Findings) -> str:
    """Return the whole report."""
    coverage = classify(findings.suspended, findings.executed)
    parts = [
        _totals(plan, findings),
        _schedules(findings),
        _verdicts(findings),
        _outcomes(findings),
        _coverage(coverage),
        _violations(findings),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _totals(plan: Plan, findings: Findings) -> str:
    boundaries = sum(one.boundaries for one in findings.schedules)
    states = sum(len(states) for states in findings.states.values())
    seeds = Counter(one.scenario for one in findings.schedules)
    most = max(seeds.values(), default=0)
    return "\n".join(
        [
            f"sweep, {plan.name}: {len(seeds)} scenarios, up to {most} seeds each",
            f"boundaries {boundaries}, runs {findings.runs}"
            f" (of them with two causes {findings.depth2}),"
            f" acts that met nothing {findings.idle}",
            f"distinct states {states}, scopes {len(findings.scopes)},"
            f" hung {findings.hung}",
            f"violations {len(findings.violations)}",
        ]
    )


def _schedules(findings: Findings) -> str:
    rows = [("scenario", "boundaries", "states", "new states by seed")]
    for name in dict.fromkeys(one.scenario for one in findings.schedules):
        mine = [one for one in findings.schedules if one.scenario == name]
        rows.append(
            (
                name,
                _spread([one.boundaries for one in mine]),
                str(mine[-1].states),
                " ".join(str(one.fresh) for one in mine),
            )
        )
    return table(rows)


def _spread(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def _verdicts(findings: Findings) -> str:
    return "what a cancel did to each task: " + ", ".join(
        f"{name} {findings.verdicts[name]}"
        for name in ("delivered", "deferred", "shielded", "spared")
    )


def _outcomes(findings: Findings) -> str:
    """Return the confusion matrix of causes and outcomes, as counts."""
    outcomes = sorted({outcome for _, outcome in findings.by_cause})
    causes = sorted({cause for cause, _ in findings.by_cause})
    used = [("cause (the first)", *outcomes)]
    for cause in causes:
        counts = (findings.by_cause[cause, outcome] for outcome in outcomes)
        used.append((cause, *(str(count) if count else "." for count in counts)))
    return "recorded outcomes by cause\n" + table(used) if causes else ""


def _coverage(coverage: Coverage) -> str:
    reachable = len(coverage.covered) + len(coverage.missed)
    share = 100 * len(coverage.covered) / reachable if reachable else 100
    lines = [
        f"await sites: {len(coverage.covered)} of {reachable} that can be suspended in"
        f" memory were ({share:.1f} %); {len(coverage.never_suspends)} ran and no"
        f" request waited there, {len(coverage.excused)} are excused"
    ]
    lines += _listed("never reached", coverage.missed)
    lines += _listed("nobody waits", coverage.never_suspends)
    reasons = Counter((one.path, one.excuse or "") for one in coverage.excused)
    lines += [
        f"  excused: {path} ({count}): {reason}"
        for (path, reason), count in sorted(reasons.items())
    ]
    return "\n".join(lines)


def _listed(title: str, sites: Iterable[AwaitSite]) -> list[str]:
    return [f"  {title}: {one.path}:{one.line} {one.function}" for one in sites]


def _violations(findings: Findings) -> str:
    if not findings.violations:
        return "no invariant was violated"
    counts = Counter(one.invariant for one in findings.violations)
    lines = [f"{name}: {count} runs" for name, count in sorted(counts.items())]
    for one in findings.violations[:SHOWN]:
        lines += [f"VIOLATED {one.invariant}: {one.found}", f"    --replay {one.token}"]
    if (more := len(findings.violations) - SHOWN) > 0:
        lines.append(f"and {more} more")
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in aligned columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)

"""What the runs of one server come to: a verdict for each phase; from records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cancel_lab.mcp.experiment import MCPPlan, Phase
from cancel_lab.mcp.messages import MODERN
from cancel_lab.records import RunRecord, Status
from cancel_lab.report.table import Table, milliseconds
from cancel_lab.statistics import MINIMUM_N_FOR_CLAIM, summarize

HEAD = ("phase", "stopped in time", "p50 ms", "95 % CI", "max ms", "the work ended by",
        "verdict")  # fmt: skip


def could_still_fail(n: int) -> float:
    """Return the share of failures that `n` runs without one do not rule out (95 %)."""
    share: float = 1 - 0.05 ** (1 / n)
    return share


def verdict(runs: Sequence[RunRecord], phase: Phase) -> str:
    """Return the verdict over all runs of a phase.

    Only what revision 2026-07-28 demands is judged, and only if there are enough runs.
    """
    if runs[0].sut.version != MODERN:
        return f"not judged: speaks {runs[0].sut.version}"
    if phase is Phase.NOTIFIED:
        return "not judged: not demanded over HTTP"
    bad = [run for run in runs if run.status is not Status.PASS]
    if bad:
        return f"does not conform: {len(bad)} of {len(runs)}"
    if len(runs) < MINIMUM_N_FOR_CLAIM:
        return f"not judged: fewer than {MINIMUM_N_FOR_CLAIM} runs"
    return "conforms"


def conforms(records: Sequence[RunRecord]) -> bool:
    """Say whether nothing that was judged failed."""
    return not any(
        run.status is not Status.PASS
        for run in records
        if run.sut.version == MODERN and run.phase != Phase.NOTIFIED.value
    )


def rows(records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """Return the table of one server, its head first."""
    table: list[tuple[str, ...]] = [HEAD]
    for phase in Phase:
        runs = [
            run
            for run in records
            if run.phase == phase.value and run.experiment == "mcp"
        ]
        if not runs:
            continue
        passed = sum(run.status is Status.PASS for run in runs)
        found = [latency for run in runs if (latency := run.latency("t_work_end"))]
        summary = summarize([(ns / 1e6, seen) for ns, seen in found])
        low, high = summary.p50_interval
        hows = Counter(run.terminal or run.reason or "" for run in runs)
        table.append((
            phase.value,
            f"{passed} of {len(runs)}",
            milliseconds(summary.p50),
            f"{milliseconds(low)} to {milliseconds(high)}",
            milliseconds(summary.maximum),
            ", ".join(f"{how} {count}" for how, count in hows.most_common(3)),
            verdict(runs, phase),
        ))  # fmt: skip
    return table


def tables(records: Sequence[RunRecord]) -> list[Table]:
    """Return the tables of all servers among the records, each with its title.

    Of several servers the first table has one row for each.
    """
    grouped: dict[tuple[str, str, str], list[RunRecord]] = {}
    for run in records:
        if run.tier == "mcp":
            key = (run.sut.name, run.sut.version or "?", run.transport)
            grouped.setdefault(key, []).append(run)
    each = [
        (f"{name}, MCP {version}, {transport}", rows(runs))
        for (name, version, transport), runs in grouped.items()
    ]
    if len(grouped) < 2:
        return each
    body = [_overview_row(*key, runs) for key, runs in grouped.items()]
    return [("MCP: work that stopped in time", [OVERVIEW_HEAD, *body]), *each]


OVERVIEW_HEAD = (
    "server",
    "revision",
    "over",
    *Phase,
    "median, slowest phase",
    "verdict",
)


def _overview_row(
    name: str, version: str, transport: str, runs: Sequence[RunRecord]
) -> tuple[str, ...]:
    cells = []
    medians = []
    verdicts = []
    for phase in Phase:
        found = [run for run in runs if (run.phase, run.experiment) == (phase, "mcp")]
        if not found:
            cells.append("")
            continue
        passed = [run for run in found if run.status is Status.PASS]
        cells.append(f"{len(passed)} of {len(found)}")
        said = verdict(found, phase)
        if phase is not Phase.NOTIFIED or version != MODERN:
            verdicts.append(said)
        seen = [latency for run in passed if (latency := run.latency("t_work_end"))]
        median = summarize([(ns / 1e6, True) for ns, _ in seen]).p50
        medians += [] if median is None else [median]
    worst = f"{milliseconds(max(medians))} ms" if medians else ""
    verdicts.sort(key=lambda said: not said.startswith("does not"))
    return (name, version, transport, *cells, worst, verdicts[0])


def notes(records: Sequence[RunRecord], plan: MCPPlan, server: str) -> list[str]:
    """Return what has to be said beside the table."""
    version = records[0].sut.version if records else "?"
    said = [
        f"{plan.name}: {server or 'a server without a name'}, MCP {version},"
        f" {plan.transport.value}, {plan.act.value}; the bound is"
        f" {plan.within_s * 1000:g} ms",
    ]
    if plan.n >= MINIMUM_N_FOR_CLAIM:
        said.append(
            f"{plan.n} runs without a failure rule out, at 95 %, that more than"
            f" {100 * could_still_fail(plan.n):.0f} % fail"
        )
    lost = [run for run in records if run.experiment == "survival"]
    failed = [run for run in lost if run.status is not Status.PASS]
    said.append(
        "the server answered after every phase" if not failed else
        f"the server did not answer after: {', '.join(run.phase for run in failed)}"
    )  # fmt: skip
    wrong = Counter(
        violation for run in records for violation in run.violations
    )  # each once, with how often
    said += [f"{count} x {violation}" for violation, count in wrong.most_common(8)]
    return said

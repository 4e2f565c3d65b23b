"""Printed tables: what a reader compares, in milliseconds, ties called ties."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cancel_lab.records import RunRecord, Status
from cancel_lab.report.summary import TIMES, Cell, cells, tally
from cancel_lab.statistics import (
    MINIMUM_N_FOR_CLAIM,
    MINIMUM_N_FOR_P99,
    Summary,
    tied,
)

TIME_NAMES = {
    "t_up": "upstream notices",
    "t_log": "outcome logged",
    "t_client_end": "client's stream ends",
    "t_process_exit": "process exits",
    "t_first_token": "first token",
    "t_work_end": "the tool's work ends",
}


def milliseconds(value: float | None, *, unseen: str = "not seen") -> str:
    """Return a figure with three significant digits, or what stands for none."""
    if value is None:
        return unseen
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in aligned columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first of them the head, as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


Table = tuple[str, list[tuple[str, ...]]]
HEAD = ("server", "p50 ms", "95 % CI", "p90", "p99", "max", "n", "unseen", "wasted",
        "verdict")  # fmt: skip


def interval(summary: Summary) -> str:
    """Return the median's interval, an unknown end as an ellipsis."""
    low, high = summary.p50_interval
    return f"{milliseconds(low, unseen='…')} to {milliseconds(high, unseen='…')}"


def _verdict(cell: Cell, group: Sequence[Cell], time: str) -> str:
    """Say which medians are lowest, and only where the runs can show it.

    None is said of a few runs, of streams of one process (a burst's are not
    independent), and of a shutdown: to cut streams is no merit. All servers are
    compared with the fastest, so each interval is the wider the more there are
    (Bonferroni): together they are right in 95 of 100 tables.
    """
    fastest = group[0]
    if fastest.summary(time).p50 is None or cell.runs[0].samples:
        return ""
    if cell.runs[0].experiment == "shutdown":
        return ""
    if min(fastest.summary(time).n, cell.summary(time).n) < MINIMUM_N_FOR_CLAIM:
        return f"no claim: n < {MINIMUM_N_FOR_CLAIM}"
    level = 1 - 0.05 / max(1, len(group) - 1)
    best = fastest.median_interval(time, level)
    others = [cell] if cell is not fastest else group[1:]
    ties = [one for one in others if tied(best, one.median_interval(time, level))]
    if best.low == best.high:
        return "no claim: an interval without width"
    if cell is fastest:
        return "lowest median, with ties" if ties else "lowest median"
    return "tie with the lowest" if ties else ""


def _row(cell: Cell, group: Sequence[Cell], time: str) -> tuple[str, ...]:
    summary = cell.summary(time)
    wasted = [run.tokens["wasted"] for run in cell.runs if "wasted" in run.tokens]
    withheld = "n < 100" if summary.n < MINIMUM_N_FOR_P99 else "not seen"
    return (
        cell.key[2],
        milliseconds(summary.p50),
        interval(summary),
        milliseconds(summary.p90),
        milliseconds(summary.p99, unseen=withheld),
        milliseconds(summary.maximum),
        str(summary.n),
        str(summary.censored),
        str(max(wasted)) if wasted else "",
        _verdict(cell, group, time),
    )


def _contested(found: Iterable[Cell], time: str) -> dict[tuple[str, ...], list[Cell]]:
    """Group the cells that differ only in the server."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in found:
        if cell.latencies(time):
            groups.setdefault(cell.key[:2] + cell.key[3:], []).append(cell)
    return groups


def _median(cell: Cell, time: str) -> float:
    median = cell.summary(time).p50
    return float("inf") if median is None else median


def latency_tables(runs: Sequence[RunRecord]) -> list[Table]:
    """Return the tables of what was compared, then those of what was not.

    Cells that differ only in the server make one table each, servers by rising median;
    the others make one table for each experiment and server.
    """
    compared: list[Table] = []
    alone: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    found = cells(runs)
    for time in TIMES:
        for key, group in _contested(found, time).items():
            if len(group) == 1:
                owner = (key[1], group[0].key[2])
                alone.setdefault(owner, []).append(_lone_row(group[0], time))
                continue
            group.sort(key=lambda cell: _median(cell, time))
            _, experiment, cause, phase, *_ = key
            transport = group[0].transport
            title = f"{experiment}: {cause}, {phase}, {transport}: {TIME_NAMES[time]}"
            body = [_row(cell, group, time) for cell in group]
            compared.append((title, [HEAD, *body]))
    lone = [
        (f"{experiment}: {server}", [LONE_HEAD, *rows])
        for (experiment, server), rows in alone.items()
    ]
    return [*compared, *lone]


LONE_HEAD = ("time", "cause", "phase", "transport", *HEAD[1:-1])


def _lone_row(cell: Cell, time: str) -> tuple[str, ...]:
    figures = _row(cell, [cell], time)[1:-1]
    return (TIME_NAMES[time], *cell.key[3:5], cell.transport, *figures)


WITHIN_NS = 1_000_000_000
VERDICT_HEAD = ("server", "phase", "cause", "stopped in time", "verdict")


def notice_verdicts(runs: Sequence[RunRecord]) -> list[Table]:
    """Return whether each server stops upstream in time, in each phase.

    "In time" is within the bound of the run (``--within``); records of before there
    was one are judged by its default.
    """
    body = []
    for cell in cells(run for run in runs if run.experiment == "notice"):
        made = [run for run in cell.runs if run.status is not Status.SKIPPED]
        if not made:
            continue
        passed = sum(_in_time(run) for run in made)
        if passed < len(made):
            verdict = f"does not stop: {len(made) - passed} of {len(made)}"
        elif len(made) < MINIMUM_N_FOR_CLAIM:
            verdict = f"no claim: n < {MINIMUM_N_FOR_CLAIM}"
        else:
            verdict = "stops"
        phase = f"{cell.key[4]}, {cell.key[7]}" if cell.key[7] else cell.key[4]
        key = (cell.key[2], phase, cell.key[3])
        body.append((*key, f"{passed} of {len(made)}", verdict))
    return [("does a cancel stop upstream?", [VERDICT_HEAD, *body])] if body else []


def _in_time(run: RunRecord) -> bool:
    latency = run.latency("t_up")
    bound = WITHIN_NS if run.within_ns is None else run.within_ns
    return latency is not None and latency[1] and latency[0] <= bound


def verdict_table(runs: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """Return one row per cell: its verdicts, outcomes, endings and what went wrong."""
    body = [
        (
            *cell.key[1:5],
            cell.transport,
            tally(run.status.value for run in cell.runs),
            tally(run.cause_recorded for run in cell.runs),
            tally(run.terminal for run in cell.runs),
            tally(violation for run in cell.runs for violation in run.violations)
            or tally(run.reason for run in cell.runs),
        )
        for cell in cells(runs)
    ]
    return [("experiment", "server", "cause", "phase", "transport", "verdicts",
             "outcomes", "endings", "violations or reason"), *body]  # fmt: skip

"""The tables of docs/cancellation.md and docs/mcp.md, from the published records."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from cancel_lab import records
from cancel_lab.adapters.catalogue import ADAPTERS
from cancel_lab.clients.acts import Transport
from cancel_lab.mcp import verdicts
from cancel_lab.records import RunRecord, Status, Sut
from cancel_lab.report.single import burst_table, stalled_table
from cancel_lab.report.summary import Cell, cells, tally
from cancel_lab.report.table import interval, markdown, milliseconds
from cancel_lab.statistics import summarize

DATA: Final = Path(__file__).parent.parent / "docs" / "data" / "cancellation"
CLIENT_CAUSES: Final = (
    "client_fin", "client_rst", "client_half_close", "h2_rst_stream", "h2_goaway",
    "cancel_by_id",
)  # fmt: skip
PHASES: Final = ("headers", "first_token", "stream", "writing")
NONE: Final = "–"  # noqa: RUF001 - what stands for nothing in a table
COMPARED: Final = ("headers", "first_token", "stream")


@cache
def published(name: str) -> tuple[RunRecord, ...]:
    """Return the records of one folder."""
    return tuple(records.read([DATA / name / "results.jsonl.gz"]))


def _cells(name: str, experiment: str) -> list[Cell]:
    return cells(run for run in published(name) if run.experiment == experiment)


def title(server: Sut) -> str:
    """Return what a server is called in the documents, with its version."""
    known = ADAPTERS[server.name].title if server.name in ADAPTERS else server.name
    return known if server.version is None else f"{known} {server.version}"


def matrix() -> str:
    """Return median and maximum of each cell; `*` is the log's time."""
    grouped: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in _cells("matrix", "matrix"):
        cause, phase, transport = cell.key[3:6]
        grouped.setdefault((cause, phase), {})[transport] = cell
    head = ("cause", "phase", *Transport, "outcome", "client's ending")
    body = []
    for (cause, phase), found in grouped.items():
        timed = [cell for cell in found.values() if _time_of(cell)]
        if not timed or cause.startswith("upstream_"):
            continue
        runs = [run for cell in timed for run in cell.runs]
        body.append((
            f"`{cause}`",
            phase,
            *(_figures(found.get(transport)) for transport in Transport),
            _quoted(run.cause_recorded for run in runs),
            _quoted(run.terminal for run in runs if _is_error(run)) or NONE,
        ))  # fmt: skip
    return markdown([head, *body])


def _is_error(run: RunRecord) -> bool:
    return run.terminal is not None and run.terminal.startswith("error")


def _quoted(words: Iterable[str | None]) -> str:
    return ", ".join(f"`{word}`" for word in sorted({word for word in words if word}))


def _time_of(cell: Cell) -> str | None:
    return next((time for time in ("t_up", "t_log") if cell.latencies(time)), None)


def _figures(cell: Cell | None) -> str:
    if cell is None:
        return ""
    time = _time_of(cell)
    if time is None:
        return NONE if cell.runs[0].status is Status.SKIPPED else ""
    summary = cell.summary(time)
    mark = "*" if time == "t_log" else ""
    return f"{milliseconds(summary.p50)} / {milliseconds(summary.maximum)}{mark}"


def clients() -> str:
    """Return how soon upstream notices over all cells of one client's doing."""
    runs = [
        run
        for run in published("matrix")
        if run.cause in CLIENT_CAUSES and run.latency("t_up")
    ]
    rows: list[tuple[str, ...]] = [("phase", "runs", "median ms", "p99", "max")]
    for phase in ("all", *PHASES):
        chosen = [run for run in runs if phase in ("all", run.phase)]
        found = [latency for run in chosen if (latency := run.latency("t_up"))]
        summary = summarize([(ns / 1e6, seen) for ns, seen in found])
        figures = (summary.p50, summary.p99, summary.maximum)
        rows.append((phase, str(len(chosen)), *map(milliseconds, figures)))
    return markdown(rows)


def burst() -> str:
    """Return the bursts."""
    return markdown(burst_table(published("burst"))[0][1])


def comparison() -> str:
    """Return the servers side by side."""
    grouped: dict[str, dict[str, Cell]] = {}
    for cell in _cells("comparison", "notice"):
        grouped.setdefault(title(cell.runs[0].sut), {})[cell.key[4]] = cell
    head = (
        *("server", "before upstream's headers", "before the first token"),
        *("mid-stream", "tokens wasted, mid-stream, at most"),
    )
    body = [
        (
            server,
            *(_with_interval(found[phase]) for phase in COMPARED),
            str(max(found["stream"].wasted())),
        )
        for server, found in grouped.items()
    ]
    return markdown([head, *body])


def _with_interval(cell: Cell) -> str:
    summary = cell.summary("t_up")
    most = milliseconds(summary.maximum)
    return f"{milliseconds(summary.p50)} ({interval(summary)}; {most})"


def notice() -> str:
    """Return this server alone."""
    rows: list[tuple[str, ...]] = [
        (
            "phase",
            "n",
            "p50 ms",
            "95 % interval",
            "p90",
            "p99",
            "max",
            "wasted, at most",
        )
    ]
    for cell in _cells("notice", "notice"):
        summary = cell.summary("t_up")
        figures = (summary.p90, summary.p99, summary.maximum)
        rows.append((
            cell.key[4], str(summary.n), milliseconds(summary.p50), interval(summary),
            *map(milliseconds, figures), str(max(cell.wasted())),
        ))  # fmt: skip
    return markdown(rows)


def stalled() -> str:
    """Return what became of clients that stop reading."""
    return markdown(stalled_table(published("probe"))[0][1])


def shutdown() -> str:
    """Return what SIGTERM does to live streams."""
    rows: list[tuple[str, ...]] = [
        (
            "server",
            "what its clients got",
            "their streams end after, s",
            "the process exits after, s",
        )
    ]
    for cell in _cells("probe", "shutdown"):
        seconds = [_seconds(cell, time) for time in ("t_client_end", "t_process_exit")]
        rows.append(
            (
                title(cell.runs[0].sut),
                tally(run.terminal for run in cell.runs),
                *seconds,
            )
        )
    return markdown(rows)


def _seconds(cell: Cell, time: str) -> str:
    p50 = cell.summary(time).p50
    return "not seen" if p50 is None else f"{p50 / 1000:.1f}"


def mcp() -> str:
    """Return the MCP servers, a row each."""
    return markdown(verdicts.tables(published("mcp"))[0][1])

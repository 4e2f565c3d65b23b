"""The tables of docs/cancellation.md and docs/mcp.md, from the published records."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from cancel_lab import records
from cancel_lab.adapters.catalogue import ADAPTERS
from cancel_lab.clients.acts import Transport
from cancel_lab.mcp import verdicts
from cancel_lab.network import LOSSY, SLOW
from cancel_lab.records import RunRecord, Status, Sut
from cancel_lab.report.single import burst_table, stalled_table
from cancel_lab.report.summary import Cell, cells, tally
from cancel_lab.report.table import (
    interval,
    latency_tables,
    markdown,
    milliseconds,
)
from cancel_lab.statistics import summarize

DATA: Final = Path(__file__).parent.parent / "docs" / "data" / "cancellation"
CLIENT_CAUSES: Final = (
    "client_fin", "client_rst", "client_half_close", "h2_rst_stream", "h2_goaway",
    "cancel_by_id",
)  # fmt: skip
PHASES: Final = ("headers", "first_token", "stream", "writing")
NONE: Final = "–"  # noqa: RUF001 - what stands for nothing in a table
VARIANT_CAUSES: Final = (
    ("client_fin", "headers"),
    ("client_fin", "first_token"),
    ("client_fin", "stream"),
    ("client_rst", "stream"),
    ("cancel_by_id", "stream"),
    ("grace_spent", "stream"),
    ("cancel_by_id_detached", "stream"),
)
COMPARED: Final = ("headers", "first_token", "stream")


@cache
def published(name: str) -> tuple[RunRecord, ...]:
    """Return the records of one folder."""
    return tuple(records.read([DATA / name / "results.jsonl.gz"]))


def measured() -> str:
    """Return what was measured when, on which commit, and by which command."""
    rows: list[tuple[str, ...]] = [("records", "ended", "commit", "took s", "command")]
    for path in sorted(DATA.glob("*/manifest.json")):
        manifest = json.loads(path.read_bytes())
        if "command" not in manifest:  # MCP's servers have a page of their own
            continue
        words = " ".join(_without_folder(manifest["command"][1:]))
        commit = manifest["git"]["sha"][:7]
        rows.append((
            f"`{path.parent.name}/`",
            manifest["finished"].replace("T", " ").removesuffix("Z"),
            commit + (" changed" if manifest["git"]["dirty"] else ""),
            f"{manifest['wall_time_s']:.0f}",
            f"`cancel-lab {words}`",
        ))  # fmt: skip
    return markdown(rows)


def _without_folder(words: list[str]) -> list[str]:
    """Return the words of a command without where it writes to."""
    place = words.index("--out")
    return words[:place] + words[place + 2 :]


def _cells(name: str, experiment: str) -> list[Cell]:
    return cells(run for run in published(name) if run.experiment == experiment)


def title(server: Sut) -> str:
    """Return what a server is called in the documents, with its version."""
    known = ADAPTERS[server.name].title if server.name in ADAPTERS else server.name
    return known if server.version is None else f"{known} {server.version}"


def matrix() -> str:
    """Return median and maximum of each plain cell; `*` is the log's time."""
    grouped: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in _cells("matrix", "matrix"):
        if cell.runs[0].variant:
            continue
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
        if run.cause in CLIENT_CAUSES and run.latency("t_up") and not run.variant
    ]
    rows: list[tuple[str, ...]] = [("phase", "runs", "median ms", "p99", "max")]
    for phase in ("all", *PHASES):
        chosen = [run for run in runs if phase in ("all", run.phase)]
        found = [latency for run in chosen if (latency := run.latency("t_up"))]
        summary = summarize([(ns / 1e6, seen) for ns, seen in found])
        figures = (summary.p50, summary.p99, summary.maximum)
        rows.append((phase, str(len(chosen)), *map(milliseconds, figures)))
    return markdown(rows)


def variants() -> str:
    """Return how soon upstream notices where something is not plain."""
    grouped: dict[str, dict[tuple[str, str], Cell]] = {}
    for cell in _cells("matrix", "matrix"):
        run = cell.runs[0]
        found = grouped.setdefault(run.variant, {})
        if run.transport == Transport.H1:
            found[run.cause, run.phase] = cell
    head = ("", *(f"`{cause}`, {phase}" for cause, phase in VARIANT_CAUSES))
    body = [
        (
            variant or "plain",
            *(_figures(found.get(place)) or NONE for place in VARIANT_CAUSES),
        )
        for variant, found in grouped.items()
    ]
    return markdown([head, *body])


def passed() -> str:
    """Return how many of the matrix's runs passed, by what they were."""
    runs = [run for run in published("matrix") if run.status is not Status.SKIPPED]
    rows: list[tuple[str, ...]] = [("runs", "made", "passed", "what the others broke")]
    kinds: dict[str, list[RunRecord]] = {}
    for run in runs:
        what = "nothing left (one look a server)"
        if run.experiment == "matrix":
            what = run.variant or "plain"
        kinds.setdefault(what, []).append(run)
    kinds["all"] = runs
    for what, members in kinds.items():
        good = sum(run.status is Status.PASS for run in members)
        broken = tally(
            f"{run.cause}, {run.phase}: {violation}"
            for run in members
            for violation in (run.violations or [run.reason or ""])
            if run.status is not Status.PASS
        )
        rows.append((what, str(len(members)), str(good), broken))
    return markdown(rows)


def burst() -> str:
    """Return the bursts."""
    return markdown(burst_table(published("burst"))[0][1])


def comparison() -> str:
    """Return the servers side by side, and of those not measured why not."""
    grouped: dict[str, dict[str, Cell]] = {}
    for cell in _cells("comparison", "notice"):
        grouped.setdefault(title(cell.runs[0].sut), {})[cell.key[4]] = cell
    head = (
        *("server", "before upstream's headers", "before the first token"),
        *("mid-stream", "tokens wasted, mid-stream, at most"),
    )
    body: list[tuple[str, ...]] = []
    for server, found in grouped.items():
        if skipped := found.get("any"):
            body.append((server, _skipped(skipped), "", "", ""))
            continue
        figures = [_with_interval(found[phase]) for phase in COMPARED]
        body.append((server, *figures, str(max(found["stream"].wasted()))))
    return markdown([head, *body])


def _skipped(cell: Cell) -> str:
    """Return the reason that a reader can do something about, in one line."""
    reason = cell.runs[0].reason or ""
    lines = [line.strip() for line in reason.splitlines()]
    errors = [line for line in lines if "Error" in line]
    return f"not measured: {(errors or lines)[-1]}"


def ranking() -> str:
    """Return, for each phase, which medians are lowest, as far as the runs can tell."""
    rows: list[tuple[str, ...]] = [("phase", "lowest median", "tied with it")]
    runs = [run for run in published("comparison") if run.experiment == "notice"]
    for text, table in latency_tables(runs):
        if "upstream notices" not in text:
            continue
        verdicts = {row[0]: row[-1] for row in table[1:]}
        best = [name for name, said in verdicts.items() if said.startswith("lowest")]
        ties = [name for name, said in verdicts.items() if said.startswith("tie")]
        phase = text.split(", ")[1]
        rows.append((phase, ", ".join(best) or NONE, ", ".join(ties) or NONE))
    return markdown(rows)


def _with_interval(cell: Cell) -> str:
    summary = cell.summary("t_up")
    if summary.p50 is None:
        unseen = f"not seen in {summary.censored} of {summary.n}"
        return f"**{unseen}**"
    most = milliseconds(summary.maximum)
    return f"{milliseconds(summary.p50)} ({interval(summary)}; {most})"


def lossy() -> str:
    """Return how soon upstream notices where the way to the client is bad."""
    grouped: dict[str, dict[str, Cell]] = {}
    for cell in _cells("lossy", "notice"):
        if cell.runs[0].variant:
            found = grouped.setdefault(title(cell.runs[0].sut), {})
            found[cell.runs[0].variant] = cell
    qualities = (LOSSY.name, SLOW.name)
    body = [
        (server, *(_with_interval(found[quality]) for quality in qualities))
        for server, found in grouped.items()
    ]
    return markdown([("server", *qualities), *body])


def vanished() -> str:
    """Return when upstream was closed behind clients that had vanished."""
    rows: list[tuple[str, ...]] = [("server", "streams", "upstream is closed after, s")]
    for cell in _cells("vanished", "vanished"):
        if cell.runs[0].status is Status.SKIPPED:
            continue
        latencies = cell.latencies("t_up")
        seen = sorted(ms / 1000 for ms, observed in latencies if observed)
        text = " ".join(f"{value:.1f}" for value in seen)
        if unseen := len(latencies) - len(seen):
            bound = max(ms for ms, observed in latencies if not observed) / 1000
            text = f"{text} not in {bound:.0f} ({unseen})".strip()
        rows.append((title(cell.runs[0].sut), str(len(latencies)), text))
    return markdown(rows)


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
        if cell.runs[0].status is Status.SKIPPED:
            continue
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

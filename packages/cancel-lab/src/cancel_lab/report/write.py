"""Writes a whole report folder from results files, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cancel_lab import records, timeline
from cancel_lab.mcp import verdicts
from cancel_lab.records import RunRecord
from cancel_lab.report import over_time, plots
from cancel_lab.report.page import headline, page
from cancel_lab.report.perfetto import chrome_trace, trace_of
from cancel_lab.report.single import burst_table, stalled_table
from cancel_lab.report.summary import summary_csv
from cancel_lab.report.table import (
    columns,
    latency_tables,
    markdown,
    notice_verdicts,
    verdict_table,
)
from cancel_lab.report.theme import save

FIGURES = {
    "notice": ("How soon upstream notices a cancel", plots.notice_plot),
    "matrix": ("Cause by phase and transport", plots.heat_plot),
    "burst": ("Many streams cancelled at once", plots.burst_plot),
    "stalled": ("A client that stops reading", over_time.stalled_plot),
}


def _figures(runs: Sequence[RunRecord], folder: Path) -> dict[str, Path]:
    drawn = {}
    for name, (title, draw) in FIGURES.items():
        figure = draw(runs)
        if figure is not None:
            drawn[title] = save(figure, folder, name)
    return drawn


def _median_runs(runs: Sequence[RunRecord]) -> dict[str, RunRecord]:
    """Choose, for each server, the run of median notice latency: a typical cancel."""
    chosen = {}
    for server in dict.fromkeys(run.sut.name for run in runs):
        seen = {}
        for number, run in enumerate(runs):
            latency = run.latency("t_up")
            if run.sut.name == server and latency and latency[1] and not run.samples:
                seen[latency[0], number] = run
        if seen:
            chosen[server] = seen[sorted(seen)[len(seen) // 2]]
    return chosen


def write_report(
    results: Sequence[Path],
    folder: Path,
    *,
    traces: Sequence[Path] = (),
    manifest: Mapping[str, object] | None = None,
) -> str:
    """Write CSV, tables, plots, HTML and traces, and return the tables as text.

    ``traces`` are timeline files (lab/timeline.py), each drawn as one Gantt plot.
    Errors: RecordError for a line that is no record.
    """
    runs = list(records.read(results))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.csv").write_bytes(summary_csv(runs))
    figures = _figures(runs, folder)
    for number, path in enumerate(traces, start=1):
        trace = timeline.read(path)
        name = f"timeline-{number}"
        figures[trace.title] = save(over_time.timeline_plot(trace), folder, name)
        (folder / f"{name}.trace.json").write_text(chrome_trace(trace))
    for server, run in _median_runs(runs).items():
        (folder / f"{server}.trace.json").write_text(chrome_trace(trace_of(run)))
    tables = [
        *notice_verdicts(runs),
        *latency_tables(runs),
        *burst_table(runs),
        *stalled_table(runs),
        *verdicts.tables(runs),
        ("all cells", verdict_table(runs)),
    ]
    html = page(tables, figures, manifest, headline(runs, manifest))
    (folder / "report.html").write_text(html, encoding="utf-8")
    text = "\n\n".join(f"### {title}\n\n{markdown(rows)}" for title, rows in tables)
    (folder / "tables.md").write_text(f"{text}\n", encoding="utf-8")
    return "\n\n".join(f"{title}\n{columns(rows)}" for title, rows in tables)

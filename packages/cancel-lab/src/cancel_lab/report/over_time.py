"""The plots over time: stalled readers, one cancel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cancel_lab.records import RunRecord
from cancel_lab.report.theme import PALETTE, caption, look, new_figure
from cancel_lab.timeline import Kind, Lane, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NS_PER_S = 1e9
NS_PER_MS = 1e6
PANELS = {
    "pulled_bytes": ("pulled from upstream, MB", 1e6),
    "rss_bytes": ("RSS, MB", 1e6),
}


def stalled_plot(runs: Sequence[RunRecord]) -> Figure | None:
    """What each server goes on pulling, and holds, while its client does not read."""
    found = [run for run in runs if run.experiment == "stalled" and run.series]
    if not found:
        return None
    figure = new_figure(7.0, 5.5)
    grid = figure.subplots(len(PANELS), 1, sharex=True)
    servers = list(dict.fromkeys((run.sut.name, run.transport) for run in found))
    for axes, (name, (title, unit)) in zip(grid, PANELS.items(), strict=True):
        for run in found:
            points = run.series.get(name, [])
            index = servers.index((run.sut.name, run.transport))
            seconds = [ns / NS_PER_S for ns, _ in points]
            values = [value / unit for _, value in points]
            label = f"{run.sut.name}, {run.transport}"
            axes.plot(seconds, values, linewidth=1.5, label=label, **look(index))
        axes.set_ylabel(title)
    grid[0].set_yscale("symlog", linthresh=1)
    grid[0].legend(fontsize=7)
    grid[-1].set_xlabel("s since the client stopped reading")
    caption(figure, "One run a line; a line ends when upstream saw its connection end.")
    return figure


def timeline_plot(trace: Trace) -> Figure:
    """One cancel: tasks as lanes, shields hatched, tokens as ticks, marks as lines."""
    lanes = trace.lanes
    figure = new_figure(9.0, 1.3 + 0.34 * len(lanes))
    axes = figure.subplots()
    steps = trace.unit == "steps"
    zero, unit = (0, 1.0) if steps else (_zero(trace), NS_PER_MS)
    for y, lane in enumerate(lanes):
        _lane(axes, lane, y, zero, unit)
    names = list(dict.fromkeys(mark.name for mark in trace.marks))
    for index, name in enumerate(names):
        times = [(m.at_ns - zero) / unit for m in trace.marks if m.name == name]
        for first, x in enumerate(times):
            label = None if first else name
            axes.axvline(x, **look(index + 1), linewidth=1, label=label)
    if names:
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set_yticks(range(len(lanes)), [f"{x.process}: {x.name}" for x in lanes])
    axes.set_ylim(len(lanes) - 0.5, -0.7)
    axes.set_xlabel("events of the schedule" if steps else "ms since the cause")
    axes.set_title(trace.title)
    axes.grid(visible=False, axis="y")
    caption(figure, "n = 1 run. Light: alive; dark: running; hatched: under a shield.")
    return figure


def _zero(trace: Trace) -> int:
    causes = [mark.at_ns for mark in trace.marks if mark.name == "t_cause"]
    starts = [span.start_ns for lane in trace.lanes for span in lane.spans]
    return causes[0] if causes else min(starts, default=0)


def _lane(axes: Axes, lane: Lane, y: int, zero: int, unit: float) -> None:
    looks: dict[Kind, dict[str, Any]] = {
        Kind.LIFE: {"facecolors": "#cfe3f2"},
        Kind.RUN: {"facecolors": PALETTE[0]},
        Kind.SHIELDED: {
            "facecolors": "none",
            "hatch": "////",
            "edgecolors": PALETTE[1],
        },
    }
    for kind, style in looks.items():
        bars = [
            ((s.start_ns - zero) / unit, (s.end_ns - s.start_ns) / unit)
            for s in lane.spans
            if s.kind is kind
        ]
        if bars:
            axes.broken_barh(bars, (y - 0.35, 0.7), **style)
    ticks = [s.start_ns for s in lane.spans if s.kind is Kind.TOKEN]
    times = [(tick - zero) / unit for tick in ticks]
    axes.plot(times, [y] * len(times), "|", color=PALETTE[6], markersize=9)

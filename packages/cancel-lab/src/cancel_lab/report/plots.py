"""The plots of latencies and verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cancel_lab.records import RunRecord, Status
from cancel_lab.report.summary import Cell, cells
from cancel_lab.report.theme import PALETTE, caption, look, new_figure, plain_decimals
from cancel_lab.statistics import distribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD = {Status.PASS}
UNKNOWN = {Status.SKIPPED, Status.CENSORED}


def _steps(axes: Axes, cell: Cell, index: int, end_ms: float) -> None:
    """Draw one distribution; it stops, unfinished, where observation stopped."""
    latencies = cell.latencies("t_up")
    steps = distribution(latencies)
    x = [steps[0].at if steps else end_ms, *(step.at for step in steps), end_ms]
    y = [0.0, *(step.fraction for step in steps), steps[-1].fraction if steps else 0.0]
    axes.step(x, y, where="post", label=cell.key[2], linewidth=1.6, **look(index))


def _counted(members: Sequence[Cell]) -> str:
    """Return how many runs the lines of a panel stand for, and which saw no notice."""
    runs = [cell.latencies("t_up") for cell in members]
    counts = sorted({len(latencies) for latencies in runs})
    text = "n = " + " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    for cell, latencies in zip(members, runs, strict=True):
        if unseen := sum(not seen for _, seen in latencies):
            text += f"; {cell.key[2]}: {unseen} not seen"
    return text


def notice_plot(runs: Sequence[RunRecord]) -> Figure | None:
    """ECDF of the time until upstream notices, one panel a phase, one line a server."""
    found = [cell for cell in cells(runs) if cell.latencies("t_up")]
    found = [cell for cell in found if cell.key[1] == "notice"]
    if not found:
        return None
    servers = list(dict.fromkeys(cell.key[2] for cell in found))
    panels: dict[str, list[Cell]] = {}
    for cell in found:
        panels.setdefault(f"{cell.key[3]}, {cell.key[4]}, {cell.transport}", []).append(
            cell
        )
    figure = new_figure(7.0, 1.4 + 2.7 * len(panels))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    longest = max(ms for cell in found for ms, _ in cell.latencies("t_up"))
    for (title, members), axes in zip(panels.items(), grid[:, 0], strict=True):
        for cell in members:
            _steps(axes, cell, servers.index(cell.key[2]), longest * 1.2)
        axes.set(xscale="log", ylim=(0, 1.02), ylabel="share of runs")
        axes.set_title(f"{title} ({_counted(members)})", fontsize=9)
    plain_decimals(grid[-1, 0].xaxis)
    lines = {
        label: line
        for axes in grid[:, 0]
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        lines.values(), lines, loc="outside upper center", ncols=4, fontsize=7
    )
    grid[-1, 0].set_xlabel("upstream notices the cancel, ms after the cause (log)")
    caption(figure, "Empirical distribution (Kaplan-Meier where some were not seen).")
    return figure


ORDER = ("connecting", "headers", "first_token", "stream", "silence", "writing")


def _place(cell: Cell) -> tuple[int, str, str]:
    """Return where a cell stands from left to right: by phase, then transport."""
    phase = cell.key[4]
    rank = ORDER.index(phase) if phase in ORDER else len(ORDER)
    if cell.key[7]:
        rank += len(ORDER) + 1  # what is not plain stands behind what is
    return rank, phase, cell.transport


def heat_plot(runs: Sequence[RunRecord]) -> Figure | None:
    """Cause by phase and transport: runs that pass of runs made, in counts."""
    found = [cell for cell in cells(runs) if cell.key[1] == "matrix"]
    found = [cell for cell in found if cell.key[3] != "any"]
    if not found:
        return None
    causes = list(dict.fromkeys(cell.key[3] for cell in found))
    places = sorted({_place(cell) for cell in found})
    figure = new_figure(1.8 + 0.45 * len(places), 1.9 + 0.32 * len(causes))
    axes = figure.subplots()
    for cell in found:
        _square(axes, cell, places.index(_place(cell)), causes.index(cell.key[3]))
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_ylim(len(causes) - 0.5, -0.5)
    labels = [f"{phase}, {transport}" for _, phase, transport in places]
    axes.set_xticks(range(len(places)), labels, rotation=90)
    axes.set_yticks(range(len(causes)), causes)
    axes.grid(visible=False)
    caption(figure, "passed / runs. Blue: all; orange: not all; hatched: impossible.")
    return figure


def _square(axes: Axes, cell: Cell, x: int, y: int) -> None:
    made = [run for run in cell.runs if run.status not in UNKNOWN]
    good = sum(run.status in GOOD for run in made)
    if not made:
        axes.fill_between([x - 0.48, x + 0.48], y - 0.46, y + 0.46, facecolor="#eeeeee",
                          edgecolor="#999999", hatch="////", linewidth=0)  # fmt: skip
        return
    color = PALETTE[0] if good == len(made) else PALETTE[1]
    axes.fill_between(
        [x - 0.48, x + 0.48], y - 0.46, y + 0.46, color=color, alpha=0.85, linewidth=0
    )
    axes.text(x, y, f"{good}/{len(made)}", ha="center", va="center", color="white",
              fontsize=7)  # fmt: skip


def burst_plot(runs: Sequence[RunRecord]) -> Figure | None:
    """Time until upstream notices against the number of streams cancelled at once."""
    found = [cell for cell in cells(runs) if cell.key[1] == "burst"]
    found = [cell for cell in found if cell.latencies("t_up")]
    if not found:
        return None
    figure = new_figure()
    axes = figure.subplots()
    servers = list(dict.fromkeys(cell.key[2] for cell in found))
    for index, server in enumerate(servers):
        own = [cell for cell in found if cell.key[2] == server]
        own.sort(key=lambda cell: cell.runs[0].counts["streams"])
        n = [cell.runs[0].counts["streams"] for cell in own]
        for name, marker in (("p50", "o"), ("maximum", "^")):
            values = [getattr(cell.summary("t_up"), name) for cell in own]
            y = [math.nan if value is None else value for value in values]
            label = f"{server}, {'last' if name == 'maximum' else 'median'}"
            axes.plot(n, y, marker=marker, markersize=4, label=label, **look(index))
    axes.set(xscale="log", yscale="log", xlabel="streams cancelled at once",
             ylabel="upstream notices, ms after its client's close")  # fmt: skip
    plain_decimals(axes.xaxis, axes.yaxis)
    axes.legend(fontsize=7)
    repeats = max(len(cell.runs) for cell in found)
    caption(
        figure, f"At most {repeats} bursts a point; a gap means some were not seen."
    )
    return figure

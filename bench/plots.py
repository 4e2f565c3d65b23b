"""The plots of docs/performance.md, by the number of streams."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.figures import Figure
from cancel_lab.report.theme import caption, look, new_figure, save

_LEVEL: Final = re.compile(r"(\d+) streams: (.*)")
_NOTE: Final = "one gateway core, loopback; median of {rounds} round(s)"


def draw(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write one plot for each quantity that was measured at several levels."""
    rounds = max(len(values) for f in figures for values in f.values.values())
    plots = (
        ("rate", "events/s, no delay", ("events/s",)),
        ("delay", "event delay, ms", ("event delay p50", "event delay p99")),
        ("cpu", "CPU, % of a core", ("CPU",)),
    )
    return [
        _plot(figures, folder, name, label=label, quantities=quantities, rounds=rounds)
        for name, label, quantities in plots
    ]


def draw_pauses(figures: Sequence[Figure], folder: Path) -> Path:
    """Write the plot of the worst pauses by the number of live streams."""
    return _plot(
        figures,
        folder,
        "pauses",
        label="worst event delay, ms",
        quantities=("worst event delay",),
        rounds=1,
        servers=("ours", "aiohttp"),
    )


def series(
    figures: Sequence[Figure], quantity: str, who: str
) -> tuple[list[int], list[float]]:
    """Return levels and medians of one quantity of one server."""
    levels: list[int] = []
    medians: list[float] = []
    for figure in figures:
        match = _LEVEL.fullmatch(figure.name)
        median = figure.median(who)
        if match and match[2] == quantity and median is not None:
            levels.append(int(match[1]))
            medians.append(median)
    return levels, medians


def _plot(
    figures: Sequence[Figure],
    folder: Path,
    name: str,
    *,
    label: str,
    quantities: Sequence[str],
    rounds: int,
    servers: Sequence[str] = ("ours", "naive"),
) -> Path:
    picture = new_figure(5.0, 3.2)
    axes = picture.add_subplot()
    lines = [(who, quantity) for who in servers for quantity in quantities]
    for index, (who, quantity) in enumerate(lines):
        levels, medians = series(figures, quantity, who)
        title = who if len(quantities) == 1 else f"{who}, {quantity.split()[-1]}"
        axes.plot(levels, medians, marker="o", markersize=3, label=title, **look(index))
    axes.set_xscale("log")
    if name != "cpu":
        axes.set_yscale("log")
    axes.set_xlabel("streams")
    axes.set_ylabel(label)
    axes.legend()
    caption(picture, _NOTE.format(rounds=rounds))
    return save(picture, folder, name)

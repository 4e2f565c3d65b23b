"""The figures of the documents, as SVG, from the published records."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cancel_lab.report.plots import burst_plot, notice_plot
from cancel_lab.report.theme import PALETTE, caption, new_figure
from scripts.cancellation_tables import published

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SWEEP: Final = Path(__file__).parent.parent / "docs" / "data" / "sweep" / "full.json"


def burst() -> str:
    """Return the bursts: notice against the number of streams."""
    return _svg(burst_plot(published("burst")))


def comparison() -> str:
    """Return the distributions of all servers, one panel a phase."""
    return _svg(notice_plot(published("comparison")))


def sweep() -> str:
    """Return the rows of the full sweep: what each scenario was cancelled at."""
    rows = json.loads(SWEEP.read_text())["scenarios"]
    names = sorted(rows, key=lambda name: rows[name]["runs"])
    figure = new_figure(7.0, 1.0 + 0.17 * len(names))
    axes = figure.subplots()
    for index, (what, marker) in enumerate((("boundaries", "o"), ("runs", "s"))):
        values = [rows[name][what] for name in names]
        places = range(len(names))
        axes.plot(
            values, places, marker, color=PALETTE[index], markersize=4, label=what
        )
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlim=(0, None), ylim=(-1, len(names)), xlabel="how many")
    axes.legend(fontsize=7, loc="lower right")
    caption(figure, f"{len(names)} scenarios; the runs try causes at their boundaries.")
    return _svg(figure)


def _svg(figure: Figure | None) -> str:
    """Return the bytes that the same data give each time, as text."""
    assert figure is not None, "the data of this figure are published"
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"

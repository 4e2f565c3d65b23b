"""How all plots look: Agg, one colour-blind-safe palette, reproducible files.

Matplotlib takes half a second to import, so only who draws imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart under every common colour deficiency.
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
LINES = ("-", "--", "-.", ":")  # a second cue, for print without colour
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "trio-ai-stream",  # equal data, equal file
    "svg.fonttype": "none",
}


def new_figure(width: float = 7.0, height: float = 4.0) -> Figure:
    """Return an empty figure of a size in inches."""
    import matplotlib.style
    from matplotlib.figure import Figure

    matplotlib.use("Agg")
    matplotlib.style.use(STYLE)
    return Figure(figsize=(width, height), layout="constrained")


def look(index: int) -> dict[str, Any]:
    """Return colour and line style of the series with this index."""
    color = PALETTE[index % len(PALETTE)]
    return {"color": color, "linestyle": LINES[index % len(LINES)]}


def caption(figure: Figure, text: str) -> None:
    """Put a small caption below the plot; it says n."""
    figure.supxlabel(text, fontsize=7, color="#444444", x=0.01, ha="left")


def plain_decimals(*axes: Axis) -> None:
    """Label the ticks of logarithmic axes with plain numbers: 0.1, 1, 10."""
    from matplotlib.ticker import StrMethodFormatter

    for axis in axes:
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write SVG and PNG and return the SVG's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
    return path

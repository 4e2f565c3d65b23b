"""What a benchmark yields: figures with every round's value, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import machine


@dataclass
class Figure:
    """One measured quantity: who had which values, a value a round."""

    name: str
    unit: str
    goal: str = ""
    digits: int = 2
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, who: str, value: float) -> None:
        """Note one round's value."""
        self.values.setdefault(who, []).append(value)

    def median(self, who: str) -> float | None:
        """Return the median over the rounds, None if there are none."""
        values = self.values.get(who)
        return statistics.median(values) if values else None

    @property
    def ratio(self) -> float | None:
        """Ours to naive's, or to aiohttp's; median of the rounds' own ratios."""
        ours = self.values.get("ours")
        other = self.values.get("naive") or self.values.get("aiohttp")
        if not ours or not other or 0 in other:
            return None
        return statistics.median(a / b for a, b in zip(ours, other, strict=False))

    def cell(self, who: str) -> str:
        """Return the median, and the range when there are several rounds."""
        median, values = self.median(who), self.values.get(who, [])
        if median is None:
            return ""
        text = f"{median:,.{self.digits}f}"
        if len(values) > 1:
            low, high = min(values), max(values)
            text += f" ({low:,.{self.digits}f}-{high:,.{self.digits}f})"
        return text


def ratio_text(figure: Figure) -> str:
    """Return the ratio as a reader would say it: `25x`, `1/30`."""
    ratio = figure.ratio
    if not ratio:
        return ""
    if "aiohttp" in figure.values:
        return f"{ratio:.2f}"
    return f"{ratio:.1f}x" if ratio >= 1 else f"1/{1 / ratio:.1f}"


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "| work | figure | ours | naive | aiohttp | ratio | without gateway | goal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for figure in figures:
        work, _, name = figure.name.partition(": ")
        cells = [
            work,
            f"{name}, {figure.unit}" if figure.unit else name,
            figure.cell("ours"),
            figure.cell("naive"),
            figure.cell("aiohttp"),
            ratio_text(figure),
            figure.cell("direct"),
            figure.goal,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_json(figures: Sequence[Figure], path: Path) -> None:
    """Write every value of every round."""
    document: dict[str, Any] = {
        "machine": machine(),
        "figures": [dataclasses.asdict(figure) for figure in figures],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")

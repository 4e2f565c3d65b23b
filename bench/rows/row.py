"""What all rows share: sizes as fields, rounds that alternate, quantiles."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.figures import Figure
from bench.processes import NAMES


class Row(Protocol):
    """One benchmark; its fields are its sizes."""

    def measure(self) -> list[Figure]:
        """Run it, processes and all."""


@dataclass(frozen=True)
class Rounds:
    """How often a row is run; the machine's other work can only add, so use several."""

    rounds: int = 3

    def turns(self) -> Iterator[str]:
        """Yield who is measured next: A B, B A, A B, ... ."""
        for number in range(self.rounds):
            yield from NAMES if number % 2 == 0 else reversed(NAMES)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies; nan without any."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    cuts = statistics.quantiles(values, n=1000, method="inclusive")
    return cuts[min(998, max(0, round(share * 1000) - 1))]

"""What all rows share: sizes as fields, rounds that alternate, quantiles."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from bench.figures import Figure

NAMES: Final = ("ours", "naive")
RIVALS: Final = ("ours", "aiohttp")
T = TypeVar("T")


class Row(Protocol):
    """One benchmark; its fields are its sizes."""

    def measure(self) -> list[Figure]:
        """Run it, processes and all."""


@dataclass(frozen=True)
class Rounds:
    """How often a row is run; the machine's other work can only add, so use several."""

    rounds: int = 3

    def turns(self) -> Iterator[str]:
        """Yield who is measured next, ours or naive."""
        return in_turns(self.rounds, NAMES)


def alternating(number: int, these: Sequence[T]) -> Sequence[T]:
    """Return in which order these are measured in a round: A B, B A, A B, …"""
    return these if number % 2 == 0 else these[::-1]


def in_turns(rounds: int, these: Sequence[T]) -> Iterator[T]:
    """Yield which of these is measured next, over all rounds."""
    for number in range(rounds):
        yield from alternating(number, these)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies; nan without any."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    cuts = statistics.quantiles(values, n=1000, method="inclusive")
    return cuts[min(998, max(0, round(share * 1000) - 1))]

"""What streams of one day came to, on its way to the totals of all hosts; pure.

A cell is what the streams of one key, model, provider and outcome sum up to. There are
2000 of them a day at most, here and in Valkey; what would be one more is in the cell of
its key's others, so that a client that makes up models does not hide another's sums.
Of those there are 2000 as well, and then the cell of all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

import msgspec

from trio_ai_stream.billing.usage_database import SUMS, LedgerRow
from trio_ai_stream.wire.record import Basis, Outcome

MAX_CELLS: Final = 2000
NAMES: Final = ("key", "model", "provider", "outcome")
MEASURES: Final = tuple(SUMS)
_OTHERS: Final = "(others)"
OTHERS: Final = msgspec.json.encode([_OTHERS] * len(NAMES)).decode()


def day_of(ended_at: float) -> str:
    """Return the day of a Unix time in UTC, as 2026-11-26."""
    return datetime.fromtimestamp(ended_at, UTC).date().isoformat()


class UsageBatch:
    """What keys with names spent on one day, and the cells of all streams."""

    def __init__(self, day: str) -> None:
        self.day = day
        self.spent: Counter[str] = Counter()
        self.cells: dict[str, list[int]] = {}
        self._of_key: dict[str, str] = {}  # each cell's key's others
        self.then: list[Callable[[], object]] = []  # to be called once it is counted

    def count(self, row: LedgerRow, times: int) -> None:
        """Add a stream, or take one away with `times` -1."""
        cell = msgspec.json.encode([getattr(row, name) for name in NAMES]).decode()
        others = msgspec.json.encode([row.key, *[_OTHERS] * 3]).decode()
        if cell not in self.cells and len(self.cells) >= MAX_CELLS:
            cell = others
            if cell not in self.cells and len(self.cells) >= 2 * MAX_CELLS:
                cell = others = OTHERS
        self._of_key[cell] = others
        sums = self.cells.setdefault(cell, [0] * len(MEASURES))
        for index, amount in enumerate(_measures(row)):
            sums[index] += times * amount

    def over(self) -> None:
        """Call what waits for the batch: it is counted, or cannot be now."""
        waiting, self.then = self.then, []
        for act in waiting:
            act()

    def arguments(self) -> list[str | int]:
        """Return what the script takes: pairs of names and amounts, then the cells."""
        found: list[str | int] = [len(self.spent)]
        for name, nusd in self.spent.items():
            found += [name, nusd]
        for cell, sums in self.cells.items():
            found += [cell, self._of_key[cell], " ".join(map(str, sums))]
        return found


def _measures(row: LedgerRow) -> Iterator[int]:
    """Yield what one stream adds to each of `SUMS`, in their order."""
    yield 1
    for count in (
        row.prompt_tokens,
        row.completion_tokens,
        row.reasoning_tokens,
        row.cached_tokens,
        row.cost_nusd,
    ):
        yield count or 0
    for basis in (Basis.EXACT, Basis.RECONCILED, Basis.ESTIMATED):
        yield row.usage is basis
    yield row.outcome != Outcome.COMPLETED
    yield (row.tokens_after_close or 0) > 0
    yield row.tokens_after_close or 0

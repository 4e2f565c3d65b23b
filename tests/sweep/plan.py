"""What a sweep does: which scenarios, seeds, causes and pairs of causes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.sweep.causes import CAUSES
from tests.sweep.scenarios import SCENARIOS

# First cause, then a second one while the first is being dealt with.
PAIRS: Final = (
    ("disconnect", "kill"),
    ("stall", "kill"),
    ("cancel", "disconnect"),
    ("cancel", "kill"),
    ("begin-drain", "kill"),
    ("drain", "disconnect"),
    ("drain", "kill"),
    ("disconnect", "eof"),
    ("first-token", "disconnect"),
    ("idle", "cancel"),
    ("whole", "kill"),
    ("eof", "disconnect"),
    ("error", "kill"),
    ("reset", "cancel"),
)
_NUMBERS: Final = {name: number for number, name in enumerate(SCENARIOS)}
QUIET_SEEDS: Final = 2  # without a new state, and a sweep is saturated


@dataclass(frozen=True, slots=True)
class Plan:
    """`causes` at every boundary; `rotating`: each boundary gets the next one only, and
    those that its scenario always wants.

    `seeds` is the most; a saturated sweep stops before, unless `exact_seeds`. With
    `by_scope` every scope of the program is cancelled too. `pairs` are swept with the
    first seed.
    """

    name: str
    scenarios: tuple[str, ...] = tuple(SCENARIOS)
    seeds: int = 1
    exact_seeds: bool = False
    causes: tuple[str, ...] = tuple(CAUSES)
    rotating: bool = False
    by_scope: bool = False
    pairs: tuple[tuple[str, str], ...] = ()

    def causes_at(self, k: int, seed: int, scenario: str) -> tuple[str, ...]:
        """Return what befalls boundary `k`.

        Each scenario begins with another cause: their first boundaries are the same
        steps of the program, which so meet every cause.
        """
        if not self.rotating:
            return self.causes
        turn = k + seed + _NUMBERS[scenario]
        mine = self.causes[turn % len(self.causes)]
        return tuple(dict.fromkeys((mine, *SCENARIOS[scenario].always)))


QUICK: Final = Plan("quick", seeds=1, exact_seeds=True, rotating=True)
FULL: Final = Plan("full", seeds=12, by_scope=True, pairs=PAIRS)

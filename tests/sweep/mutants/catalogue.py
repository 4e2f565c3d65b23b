"""The mutants: each a mistake that was made somewhere, or could be made here."""

from __future__ import annotations

from typing import Final

from tests.sweep.mutants.mutant import Mutant
from tests.sweep.mutants.of_others import OTHER_MUTANTS
from tests.sweep.mutants.of_relay import RELAY_MUTANTS

MUTANTS: Final[dict[str, Mutant]] = {
    mutant.name: mutant for mutant in (*RELAY_MUTANTS, *OTHER_MUTANTS)
}

"""The mutants fit the source, and the sweep finds them."""

from __future__ import annotations

import pytest

from tests.sweep.mutants.catalogue import MUTANTS
from tests.sweep.mutants.mutant import Mutant, StaleMutantError
from tests.sweep.mutants.trial import kill_table, trial
from tests.sweep.mutants.verdict import Verdict


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_a_mutant_applies_exactly_once(mutant):
    """Each mistake can still be made in the source as it stands."""
    mutant.check()


def test_a_mutant_that_no_longer_fits_says_so():
    """A mistake whose place is gone is an error, not a mutant that nobody finds."""
    stale = Mutant("stale", "none", "stream/relay.py", "no such line", "")
    with pytest.raises(StaleMutantError, match="found 0 times"):
        stale.check()


@pytest.mark.parametrize(
    ("name", "budget"), [("swallow-cancelled", 60), ("await-after-permit", 400)]
)
def test_the_sweep_finds_a_mutant_within_its_first_runs(name, budget):
    """A mistake on the way of every stream is found in the first scenarios.

    In the very first if any cause shows it; later if only one cause does, because each
    scenario begins with another one.
    """
    verdict = trial(name, "sweep", budget)
    assert verdict.killed, verdict
    assert verdict.replay


def test_the_program_as_it_is_passes_as_no_mutant():
    """An arm that would call anything a mutant finds nothing in the true program."""
    assert not trial("none", "sweep", 60).killed


def test_the_table_counts_what_each_arm_found():
    """Found mutants show the run that told; the last line counts them by arm."""
    table = kill_table(
        [
            Verdict(mutant="a", arm="sweep", killed=True, runs=3, invariant="I1"),
            Verdict(mutant="a", arm="random", killed=False, runs=9),
        ],
        {"a": "a mistake"},
    )
    assert "| `a` | a mistake | run 3 | not in 9 | I1 |" in table
    assert table.endswith("| | found | 1 of 1 | 0 of 1 | |")

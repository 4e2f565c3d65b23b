"""A stream is left at one step and come back to at another: some of all pairs."""

from __future__ import annotations

import pytest

from tests.resume.endpoints import SAID
from tests.resume.mutants import MUTANTS
from tests.resume.pairs import sweep
from tests.sweep.mutants.mutant import Mutant


@pytest.mark.parametrize("path", SAID)
def test_whenever_it_is_lost_and_found_it_is_the_undisturbed_stream(path: str) -> None:
    """`python -m tests.resume.pairs` tries them all."""
    count, problems = sweep(path, stride=45)
    assert count > 10
    assert problems == []


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_a_mistake_can_still_be_made(mutant: Mutant) -> None:
    """Each mutant applies exactly once to the source as it stands."""
    mutant.check()

"""Every program of the zoo gets the right verdict, and every token repeats it."""

from __future__ import annotations

import os

import pytest

from sweep_zoo import broken, of_anyio, whole
from sweep_zoo.animal import Animal
from trio_sweep import sweep
from trio_sweep.engine import Sweep
from trio_sweep.plan import Plan
from trio_sweep.program import Program
from trio_sweep.token import Token

WHOLE = whole.zoo.animals + of_anyio.whole.animals
BROKEN = broken.zoo.animals + of_anyio.broken.animals
OF_THE_SWEEP = {"seeds", "scopes", "pairs", "allow", "packages", "excuses"}


def program_of(animal: Animal) -> Program:
    """What the sweep of an animal runs."""
    options = {k: v for k, v in animal.options.items() if k not in OF_THE_SWEEP}
    causes = {cause.name: cause for cause in options.pop("causes", ())}
    return Program(animal.body, causes=causes, **options)


@pytest.mark.parametrize("animal", WHOLE, ids=lambda one: one.name)
def test_a_whole_program_is_found_to_be_whole(animal: Animal) -> None:
    """Nothing is found, and the sweep went on until no state was new."""
    report = sweep(animal.body, **animal.options)
    report.raise_for_violations()
    assert report.runs > report.schedules[0].boundaries > 0
    assert report.saturated or "seeds" in animal.options


@pytest.mark.parametrize("animal", BROKEN, ids=lambda one: one.name)
def test_a_broken_program_is_found_to_be_broken_in_its_way(animal: Animal) -> None:
    """Just the broken invariants are found; each token finds its own again."""
    report = sweep(animal.body, **animal.options)
    for fd in broken._kept:
        os.close(fd)
    broken._kept.clear()
    assert {one.invariant for one in report.findings} == animal.breaks, str(report)
    again = Sweep(program_of(animal), Plan(), animal.name)
    for finding in report.findings:
        if finding.invariant in {"deterministic", "excuse"}:
            continue
        _, found = again.replayed(Token.parse(finding.token))
        assert finding.invariant in {one.invariant for one in found}


def test_the_zoo_is_large_enough() -> None:
    """At least thirty programs; about half of them are broken, each in its own way."""
    assert len(whole.zoo.animals) >= 16
    assert len(broken.zoo.animals) >= 16
    assert len(whole.zoo.animals) + len(broken.zoo.animals) >= 30

"""A stream is left at one step and come back to at another: some of all pairs."""

from __future__ import annotations

import pytest

from tests.resume.endpoints import SAID
from tests.resume.mutants import MUTANTS
from tests.resume.pairs import Plan, judge, run, sweep
from tests.sweep.__main__ import main
from tests.sweep.mutants.mutant import Mutant


@pytest.mark.parametrize("path", SAID)
def test_whenever_it_is_lost_and_found_it_is_the_undisturbed_stream(path: str) -> None:
    """`python -m tests.sweep --full` tries them all."""
    tried = sweep(path, stride=60)
    assert tried.runs > 10
    assert tried.violations == []


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_a_cancel_behind_the_last_event_says_no_second_one(path: str) -> None:
    """The API's own last event is the terminal one; `--resume 5` asked for an error."""
    undisturbed = run(Plan(path, ()))
    for step in range(undisturbed.steps - 20, undisturbed.steps):
        lost = ((step, "detach"), (step + 3, "delete"), (step + 6, "attach"))
        assert judge(Plan(path, lost), undisturbed.body) == ""


def test_the_sweep_has_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    """`--resume N` asks every endpoint, and says what it found."""
    assert main(["--resume", "200", "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [f"{path}:" for path in SAID]
    assert all(line.endswith(" runs, 0 violations") for line in lines)
    assert main(["--resume", "0"]) == 2


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_a_mistake_can_still_be_made(mutant: Mutant) -> None:
    """Each mutant applies exactly once to the source as it stands."""
    mutant.check()

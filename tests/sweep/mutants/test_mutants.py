"""The mutants fit the source, and the sweep finds them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.sweep.mutants.catalogue import MUTANTS
from tests.sweep.mutants.mutant import Mutant, StaleMutantError
from tests.sweep.mutants.trial import kill_table
from tests.sweep.mutants.verdict import Verdict


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_a_mutant_applies_exactly_once(mutant):
    """Each mistake can still be made in the source as it stands."""
    mutant.check()


@pytest.mark.parametrize(
    ("function", "old", "says"),
    [
        ("relay", "no_such_call()", "expected one place in relay, found 0"),
        ("relay", "stream", "found [1-9]"),
        ("no_such_function", "_1", "found it in no module"),
        ("_sites", "_1", "expected one function"),
    ],
)
def test_a_mutant_that_no_longer_fits_says_so(function, old, says):
    """A mistake whose place is gone, or is not one, is an error."""
    with pytest.raises(StaleMutantError, match=says):
        Mutant("stale", "none", function, old, "pass_").check()


BEFORE = """
class Writer:
    async def write(self, pieces):
        # one after another
        for part in pieces:
            if self.closed and part:
                self.note(part, size=len(part))
                return
            await self.out.send(part)
"""


@pytest.mark.parametrize(
    ("old", "new", "gives"),
    [
        ("self.note(...)", "", "pass"),
        ("await _1.send(_2)", "await _1.send(_2, 7)", "await self.out.send(part, 7)"),
        ("_1.closed and _2", "not _2", "if not part:"),
        ("_1.note(_2, size=len(_2))", "note(_2)", "note(part)"),
        ("if _1:\n    ...", "if True:\n    ...\nelse:\n    drop()", "drop()"),
        ("self.note(...)\nreturn", "return", "if self.closed and part:"),
    ],
)
def test_an_edit_is_made_in_the_tree_whatever_the_names(old, new, gives):
    """A pattern matches by structure, and `new` may use what it stood for."""
    mutant = Mutant("one", "", "Writer.write", old, new)
    changed = ast.unparse(mutant.apply(BEFORE))
    assert gives in changed
    assert changed != ast.unparse(ast.parse(BEFORE))
    renamed = BEFORE.replace("part", "block").replace("# one", "# each, one")
    assert ast.unparse(mutant.apply(renamed)) == changed.replace("part", "block")


@pytest.mark.parametrize(
    ("name", "budget"), [("swallow-cancelled", 60), ("await-after-permit", 400)]
)
def test_the_sweep_finds_a_mutant_within_its_first_runs(name, budget, tmp_path):
    """A mistake on the way of every stream is found in the first scenarios.

    In the very first if any cause shows it; later if only one cause does, because each
    scenario begins with another one.
    """
    status, verdict = searched(tmp_path, name, budget)
    assert (status, verdict.killed) == (0, True)
    assert verdict.replay


def test_the_program_as_it_is_passes_as_no_mutant(tmp_path):
    """An arm that would call anything a mutant finds nothing in the true program."""
    status, verdict = searched(tmp_path, "none", 60)
    assert (status, verdict.killed) == (0, False)


def searched(folder: Path, name: str, budget: int) -> tuple[int, Verdict]:
    """Let the command search for a mutant."""
    path = folder / "verdicts.json"
    words = ["--arm", "sweep", "--budget", str(budget), "--record", str(path)]
    command = [sys.executable, "-m", "tests.sweep.mutants", "--mutant", name, *words]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    (verdict,) = msgspec.json.decode(path.read_bytes(), type=list[Verdict])
    return done.returncode, verdict


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

"""What the README says is so, also for a stranger with nothing but the wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from trio_sweep.invariants import INVARIANTS

PACKAGE = Path(__file__).parent.parent
README = (PACKAGE / "README.md").read_text(encoding="utf-8")
PROGRAM, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
OUTPUT, *_ = re.findall(r"```text\n(.*?)```", README, re.DOTALL)


def test_the_invariants_are_those_of_the_table() -> None:
    """The table of the README lists every invariant with its rule, in order."""
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", README, re.MULTILINE)
    assert [row for row in rows if row[0] in INVARIANTS] == list(INVARIANTS.items())


@pytest.mark.skipif(shutil.which("uv") is None, reason="no uv to make a wheel with")
def test_the_first_program_works_in_an_empty_environment(tmp_path: Path) -> None:
    """The wheel alone, the program as it stands, the output as it stands."""

    def uv(*arguments: str) -> None:
        subprocess.run(["uv", "-q", *arguments], cwd=tmp_path, check=True, timeout=60)

    uv("build", "--wheel", "--out-dir", "dist", str(PACKAGE))
    uv("venv", "empty")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    uv("pip", "install", "--python", "empty", str(wheel))
    (tmp_path / "pool.py").write_text(PROGRAM)

    def sweep(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [tmp_path / "empty" / "bin" / "trio-sweep", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    assert sweep("pool.py:swallow") == (1, OUTPUT)
    status, text = sweep("pool.py:request", "--world", "world", "--check", "check")
    assert status == 1
    (said,) = re.findall(r"`(VIOLATED state[^`]*)`", README)
    assert said in text

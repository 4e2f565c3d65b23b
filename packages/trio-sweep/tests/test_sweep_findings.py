"""FINDINGS.md says what the published results say, and names scripts that exist."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent
TEXT = (PACKAGE / "FINDINGS.md").read_text(encoding="utf-8")


def rows() -> list[str]:
    """Return the table as the results give it."""
    found = []
    for file in sorted((PACKAGE / "findings" / "results").glob("*.json")):
        for use, result in json.loads(file.read_text()).items():
            violated = ", ".join(
                f"{one['invariant']} {one['runs']}" for one in result["findings"]
            )
            boundaries = sum(one["boundaries"] for one in result["schedules"])
            cells = [f"{result['package']} {result['version']}", use]
            cells += [str(boundaries), str(result["runs"]), str(result["states"])]
            found.append(f"| {' | '.join(cells)} | {violated or 'none'} |")
    return found


def test_the_table_is_that_of_the_results() -> None:
    """Every row, in order; at least ten packages at named versions."""
    lines = [line for line in TEXT.splitlines() if "| run " not in line]
    table = [line for line in lines if re.match(r"\| [a-z][\w-]* \d", line)]
    assert table == rows()
    assert len({row.split()[1] for row in table}) >= 10


def comparison() -> list[str]:
    """Return the table of searchers as the data gives it."""
    found = []
    data = json.loads((PACKAGE / "findings" / "comparison.json").read_text())
    for key, arms in data.items():
        package, use = key.split(": ", 1)
        for invariant in arms["every_boundary"]:
            runs = [
                arms[arm][invariant]
                for arm in ("every_boundary", "random_times", "one_task")
            ]
            cells = [package, use, invariant]
            cells += [f"run {run}" if run else "not in 1000" for run in runs]
            found.append(f"| {' | '.join(cells)} |")
    return found


def test_the_comparison_is_that_of_its_data() -> None:
    """Every row, in order; at least three packages."""
    table = [line for line in TEXT.splitlines() if "| run " in line]
    assert table == comparison()
    assert len({row.split()[1] for row in table}) >= 3


@pytest.mark.parametrize(
    ("program", "needs"),
    [
        ("http_clients.py", "httpx httpcore httpcore2"),
        ("redis_clients.py", "coredis"),
        ("mcp_client.py", "mcp"),
        ("anyio_on_trio.py", "anyio"),
        ("servers.py", "quart_trio hypercorn"),
    ],
)
def test_what_was_found_is_still_so(program: str, needs: str) -> None:
    """One seed of each use, with the version that was swept, finds the same."""
    missing = [one for one in needs.split() if importlib.util.find_spec(one) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    done = subprocess.run(
        [sys.executable, program, "--check"],
        cwd=PACKAGE / "findings",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_script_that_is_named_is_there() -> None:
    """Each parses, and says in a sentence what it shows."""
    names = set(re.findall(r"`(?:python )?(?:findings/)?(\w+\.py)", TEXT))
    assert len(names) >= 10
    for name in names:
        tree = ast.parse((PACKAGE / "findings" / name).read_text(encoding="utf-8"))
        assert ast.get_docstring(tree)


def code_lines(script: Path) -> list[str]:
    """Return a script's lines but for the docstring, comments and blank ones."""
    text = script.read_text(encoding="utf-8")
    first, *_ = ast.parse(text).body
    lines = text.splitlines()[first.end_lineno :]
    return [line for line in lines if line.strip() and line.strip()[0] != "#"]


REPROS = sorted((PACKAGE / "findings").glob("repro_*.py"))


@pytest.mark.parametrize("script", REPROS, ids=lambda script: script.stem)
def test_a_reproduction_has_ten_lines_and_is_named(script: Path) -> None:
    """At most ten lines of code, of a usual length, each with one statement."""
    lines = code_lines(script)
    assert len(lines) <= 10
    assert all(len(line) <= 88 and ";" not in line for line in lines)
    assert f"{script.name}`" in TEXT


def test_every_violated_package_has_a_reproduction() -> None:
    """The first line of a reproduction names its package and the version."""
    shown = {
        script.read_text(encoding="utf-8").split(":")[0].removeprefix('"""')
        for script in REPROS
    }
    violated = {
        row.split(" | ")[0].removeprefix("| ")
        for row in rows()
        if not row.endswith("| none |")
    }
    assert shown == violated

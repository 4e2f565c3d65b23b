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

"""FINDINGS.md says what the published results say, and names scripts that exist."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

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
    table = [line for line in TEXT.splitlines() if re.match(r"\| [a-z][\w-]* \d", line)]
    assert table == rows()
    assert len({row.split()[1] for row in table}) >= 10


def test_every_script_that_is_named_is_there() -> None:
    """Each parses, and says in a sentence what it shows."""
    names = set(re.findall(r"`(?:python )?(?:findings/)?(\w+\.py)", TEXT))
    assert len(names) >= 10
    for name in names:
        tree = ast.parse((PACKAGE / "findings" / name).read_text(encoding="utf-8"))
        assert ast.get_docstring(tree)

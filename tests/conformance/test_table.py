"""The table of docs/server.md and the tests that it names belong together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
NAMES: Final = re.compile(r"`(test_\w+)`")


def _rows() -> list[list[str]]:
    """Return the cells of the table's rows."""
    text = (ROOT / "docs/server.md").read_text()
    table = text.partition("| defect | shown by |")[2].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.split("\n")[2:]]


def _shown() -> list[str]:
    return [name for row in _rows() for name in NAMES.findall(row[1])]


def test_each_defect_is_shown_on_stock_hypercorn() -> None:
    """A row names one test that needs the defect to pass, or several."""
    rows = _rows()
    assert len(rows) > 15
    assert [row[0] for row in rows if not NAMES.findall(row[1])] == []


def test_the_tests_on_stock_hypercorn_are_those_of_the_table() -> None:
    """Neither a name without a test, nor a test without a row.

    A race cannot be waited for: a test of `e2e/` makes it happen instead.
    """
    stock = _tests_in("conformance/test_stock_*.py")
    assert stock <= set(_shown()) <= stock | _tests_in("e2e/test_*.py")


def _tests_in(pattern: str) -> set[str]:
    text = "\n".join(file.read_text() for file in (ROOT / "tests").glob(pattern))
    return set(re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE))


def test_each_mend_is_tested() -> None:
    """The files of tests that a row names exist; `conformance` is this folder."""
    folders = ("conformance", "e2e", "server")
    files = {
        file.stem for name in folders for file in (ROOT / "tests" / name).iterdir()
    }
    for defect, _, _, tested, _ in _rows():
        named = NAMES.findall(tested)
        assert named or tested == "conformance", defect
        assert set(named) <= files, defect

"""Files, functions and tests that the documents for contributors name exist.

In these documents a name in backticks is one of: `test_name`; `folder/` or
`folder/file.ext`; `folder/file.py:Class.method`. A path is relative to the repository,
or to `src/trio_ai_stream`.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from scripts.docs import ROOT

PACKAGE: Final = ROOT / "src" / "trio_ai_stream"
DOCUMENTS: Final = ("CONTRIBUTING.md", "docs/architecture.md", "docs/testing.md")
TEST: Final = re.compile(r"`(test_\w+)`")
PLACE: Final = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)(?::([\w.]+))?`")


@cache
def definitions(path: Path) -> frozenset[str]:
    """The qualified names that a module binds: functions, classes, constants."""

    def found(node: ast.AST, prefix: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield f"{prefix}{child.name}"
                yield from found(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.AnnAssign):
                yield f"{prefix}{ast.unparse(child.target)}"
            elif isinstance(child, ast.Assign):
                yield from (f"{prefix}{ast.unparse(one)}" for one in child.targets)

    return frozenset(found(ast.parse(path.read_text()), ""))


def known_tests() -> Counter[str]:
    """The names of all tests of the repository, and in how many files each is."""
    folders = [ROOT / "tests", *ROOT.glob("packages/*/tests")]
    files = [file for folder in folders for file in folder.rglob("test_*.py")]
    return Counter(name for file in files for name in definitions(file))


def fault_of(path: str, name: str) -> str | None:
    """Return what is wrong with a place that a document names, if something is."""
    found = [root / path for root in (PACKAGE, ROOT) if (root / path).exists()]
    if not found:
        return f"{path}: no such file"
    if name and name not in definitions(found[0]):
        return f"{path}: no {name}"
    return None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_function_that_is_named_exists(document: str) -> None:
    """A rename in the code reaches the documents in the same commit."""
    places = PLACE.findall((ROOT / document).read_text())
    assert places
    assert [fault for place in places if (fault := fault_of(*place))] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document: str) -> None:
    """An invariant is held by a test that is there, and that a search finds at once."""
    known = known_tests()
    named = set(TEST.findall((ROOT / document).read_text()))
    assert {name: known[name] for name in named if known[name] != 1} == {}

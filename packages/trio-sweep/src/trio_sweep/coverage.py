"""Await sites: where a program can be suspended, and where a cancel met it.

A site is a line with `await`, `async for` or `async with`. It is covered when an act
landed while a task that the act concerned was suspended there, in any of its frames. A
site that only the undisturbed run was suspended at does not count.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trio_sweep.errors import MisuseError
from trio_sweep.places import Site, short


@dataclass(frozen=True, slots=True, order=True)
class AwaitSite:
    """One line of the source, and the function that it is in."""

    path: str
    line: int
    function: str

    @property
    def name(self) -> str:
        """`package/file.py:Class.function`: what an excuse is matched with."""
        return f"{short(self.path)}:{self.function}"

    def __str__(self) -> str:
        return f"{short(self.path)}:{self.line} in {self.function or 'the module'}"


@dataclass(slots=True)
class Coverage:
    """The await sites of some packages, by what became of them."""

    covered: list[AwaitSite] = field(default_factory=list)
    unwaited: list[AwaitSite] = field(default_factory=list)  # ran; nobody waited there
    missed: list[AwaitSite] = field(default_factory=list)
    excused: list[tuple[AwaitSite, str]] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)  # excuses that excuse nothing


def files_of(packages: Iterable[str]) -> list[str]:
    """Return the source files of packages or modules, by import name or path.

    :raises MisuseError: for what cannot be found.
    """
    found: set[Path] = set()
    for name in packages:
        if name.endswith(".py"):
            places = [Path(name)]
        else:
            try:
                spec = importlib.util.find_spec(name)
            except (ImportError, ValueError):
                spec = None
            if spec is None:
                raise MisuseError(
                    f"expected a package or module; {name!r} is not found"
                )
            places = [Path(one) for one in spec.submodule_search_locations or ()]
            places = places or [Path(spec.origin or "")]
        for place in places:
            found |= set(place.rglob("*.py")) if place.is_dir() else {place}
    if missing := [str(path) for path in found if not path.is_file()]:
        raise MisuseError(f"expected source files; these are none: {missing}")
    return sorted(str(path.resolve()) for path in found)


def await_sites(files: Iterable[str]) -> list[AwaitSite]:
    """Return every await site of these files, in order."""
    return sorted({site for path in files for site in _sites_of(path)})


@functools.cache
def _sites_of(path: str) -> frozenset[AwaitSite]:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    return frozenset(AwaitSite(path, line, name) for line, name in _lines(tree, ""))


def _lines(node: ast.AST, function: str) -> Iterator[tuple[int, str]]:
    for child in ast.iter_child_nodes(node):
        inside = function
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inside = f"{function}.{child.name}" if function else child.name
        elif isinstance(child, ast.Await | ast.AsyncFor):
            yield child.lineno, function
        elif isinstance(child, ast.AsyncWith):
            yield child.lineno, function
            for item in child.items:
                yield item.context_expr.lineno, function
        elif isinstance(child, ast.comprehension) and child.is_async:
            yield child.iter.lineno, function
        yield from _lines(child, inside)


def classify(
    sites: Iterable[AwaitSite],
    met: set[Site],
    executed: set[Site],
    excuses: Mapping[str, str],
) -> Coverage:
    """Sort await sites; an excuse is a pattern for `AwaitSite.name`, with a reason."""
    coverage, used = Coverage(), set()
    for site in sites:
        place = (site.path, site.line)
        pattern = next(
            (one for one in excuses if fnmatch.fnmatchcase(site.name, one)), None
        )
        if place in met:
            coverage.covered.append(site)
        elif pattern is not None:
            used.add(pattern)
            coverage.excused.append((site, excuses[pattern]))
        elif place in executed:
            coverage.unwaited.append(site)
        else:
            coverage.missed.append(site)
    coverage.stale = [one for one in excuses if one not in used]
    return coverage

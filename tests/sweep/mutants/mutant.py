"""A mutant: one named mistake, made in the syntax tree of one function.

A mutant names a function and two patterns, `old` and `new`. `old` must match exactly
once in that function; `new` takes its place when the module is imported. In a pattern
`_1`, `_2` … stand for any expression, `f(...)` for a call with any arguments, and `...`
on a line of its own for any statements. So comments, layout, line numbers, the names of
other files and most names of variables may change, and the mutant still applies. When
it does not, it says so instead of testing nothing.
"""

from __future__ import annotations

import ast
import copy
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

import trio_ai_stream

PACKAGE: Final = Path(trio_ai_stream.__file__).parent
_ANY: Final = re.compile(r"_\d+")
_REST: Final = "..."
Bound = dict[str, Any]


class StaleMutantError(ValueError):
    """The source has changed: a mutant does not apply exactly once."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake that a person could make; an empty `new` drops what `old` matches.

    `function` is the end of its qualified name, as long as it must be to be the only
    one in the package: `_exchange_large`, `Stream.end`; or with the end of its module's
    name before it: `relay:_attempt`.
    """

    name: str
    mistake: str
    function: str
    old: str
    new: str = ""

    def find(self) -> tuple[str, str]:
        """Return the module and the file in which the function stands.

        :raises StaleMutantError: when there is not exactly one.
        """
        module, _, function = self.function.rpartition(":")
        found = [
            (name, path)
            for name, path, own in _functions()
            if _ends_with(own, function) and _ends_with(name, module)
        ]
        if len(found) != 1:
            places = ", ".join(name for name, _ in found) or "no module"
            raise StaleMutantError(
                f"{self.name}: expected one function {self.function}; found it in"
                f" {places}"
            )
        return found[0]

    def apply(self, source: str) -> ast.Module:
        """Return the changed syntax tree of the function's module.

        :raises StaleMutantError: when `old` does not match exactly once.
        """
        tree = ast.parse(source)
        wanted = self.function.rpartition(":")[2]
        scope = next(n for name, n in _named(tree, "") if _ends_with(name, wanted))
        old, new = ast.parse(self.old).body, ast.parse(self.new).body
        if _is_expression(old) and _is_expression(new):
            hits = list(_expressions(scope, old[0].value, new[0].value))  # type: ignore[attr-defined]
        else:
            hits = list(_statements(scope, old, new))
        if len(hits) != 1:
            raise StaleMutantError(
                f"{self.name}: expected one place in {self.function}, found"
                f" {len(hits)}, for {self.old!r}"
            )
        hits[0]()
        return ast.fix_missing_locations(tree)

    def check(self) -> None:
        """Apply the mutant to the source on disk, without any effect.

        :raises StaleMutantError: as `find` and `apply`.
        """
        path = Path(self.find()[1])
        compile(self.apply(path.read_text(encoding="utf-8")), str(path), "exec")


@functools.cache
def _functions() -> list[tuple[str, str, str]]:
    """Return module, file and qualified name of every function of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [(".".join(parts), str(path), name) for name, _ in _named(tree, "")]
    return found


def _ends_with(name: str, end: str) -> bool:
    return not end or f".{name}".endswith(f".{end}")


def _named(node: ast.AST, inside: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        name = inside
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{inside}.{child.name}" if inside else child.name
            if not isinstance(child, ast.ClassDef):
                yield name, child
        yield from _named(child, name)


def _is_expression(body: list[ast.stmt]) -> bool:
    return len(body) == 1 and isinstance(body[0], ast.Expr)


def _expressions(
    scope: ast.AST, old: ast.expr, new: ast.expr
) -> Iterator[Callable[[], None]]:
    """Yield, for each match, what replaces it."""
    for parent in ast.walk(scope):
        for field, value in ast.iter_fields(parent):
            many = isinstance(value, list)
            for at, child in enumerate(value if many else [value]):
                bound: Bound = {}
                if isinstance(child, ast.expr) and _match(old, child, bound):
                    put = _Fill(bound).visit(copy.deepcopy(new))
                    if many:
                        yield functools.partial(value.__setitem__, at, put)
                    else:
                        yield functools.partial(setattr, parent, field, put)


def _statements(
    scope: ast.AST, old: list[ast.stmt], new: list[ast.stmt]
) -> Iterator[Callable[[], None]]:
    for parent in ast.walk(scope):
        for _, block in ast.iter_fields(parent):
            if not isinstance(block, list):
                continue
            for at in range(len(block) - len(old) + 1):
                bound: Bound = {}
                found = slice(at, at + len(old))
                if _match_all(old, block[found], bound):
                    put = _Fill(bound).fill(new) or [ast.Pass()]
                    yield functools.partial(block.__setitem__, found, put)


def _match(pattern: Any, node: Any, bound: Bound) -> bool:
    """Tell whether a node is what a pattern describes; note what it stands for."""
    if isinstance(pattern, ast.Name) and _ANY.fullmatch(pattern.id):
        known = bound.setdefault(pattern.id, node)
        return isinstance(node, ast.expr) and ast.dump(known) == ast.dump(node)
    if type(pattern) is not type(node):
        return False
    if isinstance(pattern, list):
        return _match_all(pattern, node, bound)
    if not isinstance(pattern, ast.AST):
        return bool(pattern == node)
    if isinstance(pattern, ast.Call) and [*map(_is_rest, pattern.args)] == [True]:
        return _match(pattern.func, node.func, bound)
    return all(
        _match(getattr(pattern, field, None), getattr(node, field, None), bound)
        for field in pattern._fields
        if field not in {"ctx", "kind", "type_comment"}
    )


def _match_all(patterns: list[Any], nodes: list[Any], bound: Bound) -> bool:
    if patterns and _is_rest(patterns[-1]):
        patterns, rest = patterns[:-1], nodes[len(patterns) - 1 :]
        nodes = nodes[: len(patterns)]
        bound[_REST] = rest
    return len(patterns) == len(nodes) and all(
        _match(one, node, bound) for one, node in zip(patterns, nodes, strict=True)
    )


def _is_rest(node: Any) -> bool:
    if isinstance(node, ast.Expr):
        node = node.value
    return isinstance(node, ast.Constant) and node.value is ...


class _Fill(ast.NodeTransformer):
    """Puts into a pattern what the other one has matched."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound

    def fill(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Return the statements of a pattern, filled in."""
        module = ast.Module(copy.deepcopy(body), [])
        return list(self.visit(module).body)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Put an expression in."""
        found: ast.AST = copy.deepcopy(self._bound.get(node.id, node))
        return found

    def visit_Expr(self, node: ast.Expr) -> Any:
        """Put statements in."""
        if _is_rest(node):
            return copy.deepcopy(self._bound[_REST])
        return self.generic_visit(node)


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads one module from its changed syntax tree."""

    def __init__(self, mutant: Mutant, module: str, path: str) -> None:
        super().__init__(module, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        """Compile the changed tree; the cache of compiled files stays out of it."""
        tree = self._mutant.apply(self.get_data(self.path).decode("utf-8"))
        return compile(tree, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        self.module, self._path = mutant.find()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Give the mutated module our loader."""
        if fullname != self.module:
            return None
        loader = _Loader(self._mutant, fullname, self._path)
        return importlib.util.spec_from_file_location(
            fullname, self._path, loader=loader
        )


def install(mutant: Mutant) -> None:
    """Mutate this process: for one that has not imported the program yet.

    :raises StaleMutantError: when it has, or when the mutant does not apply.
    """
    mutant.check()
    finder = _Finder(mutant)
    if finder.module in sys.modules:
        raise StaleMutantError(f"{finder.module} is imported already")
    sys.meta_path.insert(0, finder)

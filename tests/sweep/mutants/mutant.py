"""A mutant: one named, reviewed mistake in the source, applied when it is imported.

It must apply exactly once. When the source moves on, a mutant that no longer fits
says so instead of testing nothing.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

import trio_ai_stream

PACKAGE = "trio_ai_stream"


class StaleMutantError(ValueError):
    """The source has changed: an edit of a mutant does not apply exactly once."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake that a person could make: `old` becomes `new` in one file.

    `path` is below the package; `old` stands there exactly once.
    """

    name: str
    mistake: str
    path: str
    old: str
    new: str

    @property
    def module(self) -> str:
        """The module that the file is."""
        return f"{PACKAGE}.{self.path.removesuffix('.py').replace('/', '.')}"

    def apply(self, source: str) -> str:
        """Return the changed source.

        :raises StaleMutantError: when `old` is not there exactly once.
        """
        count = source.count(self.old)
        if count != 1:
            raise StaleMutantError(
                f"{self.name}: expected once in {self.path}, found {count} times:"
                f" {self.old!r}"
            )
        return source.replace(self.old, self.new)

    def check(self) -> None:
        """Apply the mutant to the source on disk, to nothing's harm.

        :raises StaleMutantError: as `apply`.
        """
        path = Path(trio_ai_stream.__file__).parent / self.path
        compile(self.apply(path.read_text(encoding="utf-8")), self.path, "exec")


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads one module from its changed source."""

    def __init__(self, mutant: Mutant, path: str) -> None:
        super().__init__(mutant.module, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        """Compile the changed source; the cache of compiled files stays out of it."""
        source = self._mutant.apply(self.get_data(self.path).decode("utf-8"))
        return compile(source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a mutated module by the usual finder; give it our loader."""
        if fullname != self._mutant.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            raise StaleMutantError(f"{fullname}: there is no such module")
        loader = _Loader(self._mutant, spec.origin)
        return importlib.util.spec_from_file_location(
            fullname, spec.origin, loader=loader
        )


def install(mutant: Mutant) -> None:
    """Mutate this process: for one that has not imported the program yet.

    :raises StaleMutantError: when it has.
    """
    if mutant.module in sys.modules:
        raise StaleMutantError(f"{mutant.module} is imported already")
    sys.meta_path.insert(0, _Finder(mutant))

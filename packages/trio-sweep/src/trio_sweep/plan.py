"""How thoroughly a program is swept, and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from trio_sweep.errors import MisuseError
from trio_sweep.injector import Boundary
from trio_sweep.invariants import INVARIANTS

Scopes = bool | str | Collection[str]
Acts = tuple[tuple[int, str], ...]
Choose = Callable[[Acts, Boundary, Sequence[str]], Iterable[str]]


@dataclass(slots=True)
class Plan:
    """What is done to a program; `seeds` None means until no state is new.

    `choose` thins a sweep out: it gets the acts so far, a boundary and the causes that
    are possible there, and returns those to be tried.
    Seeds are added until `quiet_seeds` in a row met no new state. With `most_runs` the
    sweep ends at its first finding, or after so many runs.
    """

    seeds: int | None = None
    scopes: Scopes = True
    pairs: bool = False
    jobs: int = 1
    allow: Mapping[str, str] = field(default_factory=dict)
    packages: Collection[str] = ()
    excuses: Mapping[str, str] = field(default_factory=dict)
    choose: Choose | None = None
    quiet_seeds: int = 2
    most_runs: int | None = None

    def __post_init__(self) -> None:
        if self.seeds is not None and self.seeds < 1:
            raise MisuseError(f"expected at least one seed; got {self.seeds}")
        if self.jobs < 1:
            raise MisuseError(f"expected at least one job; got {self.jobs}")
        for key, reason in self.allow.items():
            if key.partition(":")[0] not in INVARIANTS:
                known = ", ".join(INVARIANTS)
                raise MisuseError(f"expected an invariant of {known}; got {key!r}")
            if not reason.strip():
                raise MisuseError(f"expected a reason to allow {key!r}; got none")
        for pattern, reason in self.excuses.items():
            if not reason.strip():
                raise MisuseError(f"expected a reason to excuse {pattern!r}; got none")
        if self.excuses and not self.packages:
            raise MisuseError("expected packages, of which excuses name await sites")

    @property
    def patterns(self) -> list[str]:
        """The labels of scopes that were named, as patterns."""
        if isinstance(self.scopes, bool):
            return []
        return [self.scopes] if isinstance(self.scopes, str) else list(self.scopes)

    def wants(self, label: str) -> bool:
        """Tell whether the scope with this label is cancelled as well."""
        return self.scopes is True or any(
            fnmatchcase(label, pattern) for pattern in self.patterns
        )

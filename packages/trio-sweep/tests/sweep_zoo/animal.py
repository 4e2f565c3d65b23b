"""What a program of the zoo is: a body with its options, and what must be found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

Body = Callable[..., Awaitable[object]]


@dataclass(frozen=True)
class Animal:
    """A program; `breaks` are the invariants that its sweep must find violated."""

    body: Body
    breaks: frozenset[str] = frozenset()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the body's function."""
        return self.body.__name__


class Zoo:
    """Collects programs by decorators."""

    def __init__(self) -> None:
        self.animals: list[Animal] = []

    def animal(self, *breaks: str, **options: Any) -> Callable[[Body], Body]:
        """Add the decorated body."""

        def add(body: Body) -> Body:
            self.animals.append(Animal(body, frozenset(breaks), options))
            return body

        return add

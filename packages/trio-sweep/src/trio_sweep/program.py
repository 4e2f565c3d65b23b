"""What is swept: a body with its surroundings, and what may befall it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from trio_sweep.errors import MisuseError

CANCEL: Final = "cancel"  # of the scope around the body
SCOPE: Final = "scope@"  # and the label of a scope inside
World = Callable[[], AbstractAsyncContextManager[Any]]
Hit = trio.CancelScope | bool | None


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that the surroundings may do at a boundary, such as a reset.

    `act` is a plain function of what the world yields. It returns the scope that it
    cancelled, if it did, or False if there was nothing to act upon. `applies` tells
    that beforehand, so that no run is made in vain. `raises` are the
    errors that the body may end with because of it. With `within_s` the body must end
    in that many virtual seconds.
    """

    name: str
    act: Callable[[Any], Hit]
    raises: tuple[type[BaseException], ...] = (Exception,)
    within_s: float | None = None
    applies: Callable[[Any], bool] = lambda _env: True

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set(":+ ") or self.name == CANCEL:
            raise MisuseError(
                "expected a cause's name without ':', '+' or spaces, other than"
                f" {CANCEL!r}; got {self.name!r}"
            )
        if self.within_s is not None and not self.within_s >= 0:
            raise MisuseError(
                f"expected within_s of {self.name} of 0 or more; got {self.within_s}"
            )


def causes_by_name(causes: Iterable[Cause]) -> dict[str, Cause]:
    """Return causes by their names.

    :raises MisuseError: if one is no `Cause`, or two have the same name.
    """
    if not isinstance(causes, Iterable):
        raise MisuseError(f"expected a list of trio_sweep.Cause; got {causes!r}")
    found: dict[str, Cause] = {}
    for one in causes:
        if not isinstance(one, Cause):
            raise MisuseError(f"expected a trio_sweep.Cause in causes; got {one!r}")
        if one.name in found:
            raise MisuseError(f"expected a name for each cause; two are {one.name!r}")
        found[one.name] = one
    return found


def check_world(world: Any) -> None:
    """See that a world can be made anew for every run.

    :raises MisuseError: if it was made already, or makes no async context manager.
    """
    if isinstance(world, AbstractAsyncContextManager):
        raise MisuseError(
            "expected world to be a function, which is called for each run; got what it"
            " returns: leave out its parentheses"
        )
    if inspect.isasyncgenfunction(world) or inspect.iscoroutinefunction(world):
        made = (
            "an async context manager: decorate it with contextlib.asynccontextmanager"
        )
    elif inspect.isgeneratorfunction(inspect.unwrap(world) if world else None):
        made = "an async context manager; it makes one that is not async"
    else:
        return
    raise MisuseError(f"expected world to make {made}")


@dataclass(frozen=True, slots=True)
class Program:
    """Everything that a run needs; each run makes a new world.

    `observe` is called at every boundary with what the world yields, and must not
    wait; what it returns is a complaint. `judge` is called when everything is over,
    with what the world yielded and the `Run`, and returns complaints too. `settle_s`:
    real seconds without any event before the clock jumps, for real sockets.
    """

    body: Callable[..., Awaitable[object]]
    world: World | None = None
    after: Callable[..., Awaitable[object]] | None = None
    check: Callable[..., Iterable[str] | str | None] | None = None
    observe: Callable[..., str | None] | None = None
    causes: dict[str, Cause] = field(default_factory=dict)
    judge: Callable[..., Iterable[str]] | None = None
    shield_limit_s: float = float("inf")
    settle_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("body", "world", "after", "check", "observe", "judge"):
            if not callable(given := getattr(self, name)) and given is not None:
                raise MisuseError(f"expected {name} to be a function; got {given!r}")
        check_world(self.world)
        for name in ("check", "observe", "judge"):
            if inspect.iscoroutinefunction(getattr(self, name)):
                raise MisuseError(
                    f"expected {name} to be a plain function; it is async: use after"
                )
        if not 0 <= self.settle_s < float("inf"):
            raise MisuseError(
                f"expected settle_s of 0 or more seconds; got {self.settle_s}"
            )
        if not self.shield_limit_s >= 0:
            raise MisuseError(
                "expected shield_limit_s of 0 or more seconds;"
                f" got {self.shield_limit_s}"
            )

    def arguments(self, env: object) -> tuple[object, ...]:
        """Return what body, after, check and observe are called with."""
        return () if self.world is None else (env,)

"""All access to Trio's private parts, in one place, with one self-test.

Trio's instruments show steps, but neither cancel scopes nor what a task will receive
when it resumes, and its scheduler is deterministic only by a private switch. Whoever
needs that asks this module, so that another version of Trio has one file to break, and
`self_test` says at once that it did.

Nothing here changes what a program does, except `deterministic`, `lift_shields` and
what calls the public `CancelScope.cancel`. In particular a scope's state is read from
`_cancel_called`: the public `cancel_called` cancels a scope whose deadline has passed.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

import trio
import trio.testing
from trio._core import _run  # the one private import of Trio in this project

PROVEN: Final = "0.35."
Task = trio.lowlevel.Task


class TrioChangedError(RuntimeError):
    """This version of Trio is not the one whose private parts are known here."""


@contextlib.contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Make the scheduling of the runs inside a function of `seed` alone.

    The order of a batch then depends on the seed and on the order in which its tasks
    were made; Python's `random` is seeded too, for the jitter of retries.
    """
    before = _run._ALLOW_DETERMINISTIC_SCHEDULING
    state = random.getstate()
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    _run._r.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        random.setstate(state)


def birth(task: Task) -> int:
    """Return a number that orders tasks by their making."""
    return task._counter


def scopes_of(task: Task) -> list[trio.CancelScope]:
    """Return the cancel scopes that a task stands in, the outermost first."""
    found = []
    status: Any = task._cancel_status
    while status is not None:
        found.append(status._scope)
        status = status._parent
    found.reverse()
    return found


def shields_of(task: Task) -> list[trio.CancelScope]:
    """Return the shields that a task stands behind, the outermost first."""
    found = []
    status: Any = task._cancel_status
    while status is not None:
        if status._scope._shield:
            found.append(status._scope)
        status = status._parent
    found.reverse()
    return found


def tasks_below(scope: trio.CancelScope) -> list[Task]:
    """Return every task that stands in a scope, shielded or not, by birth."""
    found: list[Task] = []
    todo: list[Any] = [] if scope._cancel_status is None else [scope._cancel_status]
    while todo:
        status = todo.pop()
        found += status._tasks
        todo += status._children
    return sorted(found, key=birth)


def entered(scope: trio.CancelScope) -> bool:
    """Tell whether a scope is being stood in now."""
    return scope._cancel_status is not None


def is_cancelled(scope: trio.CancelScope) -> bool:
    """Tell whether a scope has been cancelled, without looking at its deadline."""
    return scope._cancel_called


def reason_of(scope: trio.CancelScope) -> str | None:
    """Return why a scope was cancelled, as its canceller put it, or the kind."""
    why = scope._cancel_reason
    return None if why is None else why.reason or why.source


def called_explicitly(scope: trio.CancelScope) -> bool:
    """Tell whether some code cancelled a scope, rather than its deadline.

    Each `trio.sleep` that ends is a deadline's cancel of its own scope.
    """
    why = scope._cancel_reason
    return scope._cancel_called and why is not None and why.source != "deadline"


def effectively_cancelled(task: Task) -> bool:
    """Tell whether the next checkpoint of a task raises Cancelled."""
    return bool(task._cancel_status.effectively_cancelled)


def awaiting(task: Task) -> bool:
    """Tell whether a task is suspended without being due to run."""
    return task._next_send_fn is None


def over(task: Task) -> bool:
    """Tell whether a task has run to its end."""
    return getattr(task.coro, "cr_frame", None) is None


def pending_cancelled(task: Task) -> trio.Cancelled | None:
    """Return the Cancelled that a scheduled task will receive in its next step."""
    error = getattr(task._next_send, "error", None)
    return error if isinstance(error, trio.Cancelled) else None


def lift_shields(scope: trio.CancelScope) -> None:
    """Take the shield off every scope below this one: the way out of a hang."""
    for task in tasks_below(scope):
        for inner in scopes_of(task):
            if inner.shield:
                inner.shield = False


def living_async_generators() -> int:
    """Return how many async generators have begun and not ended, in this run."""
    begun = _run.GLOBAL_RUN_CONTEXT.runner.asyncgens.alive
    return sum(generator.ag_frame is not None for generator in begun)


def frames_of(task: Task) -> list[tuple[FrameType, int]]:
    """Return the frames of a suspended task with their lines, outermost first."""
    return list(task.iter_await_frames())


def self_test() -> None:
    """Check each private part that is used here on a small program.

    :raises TrioChangedError: naming what differs; then no result could be trusted.
    """
    self_test_version()
    try:
        with deterministic(7):
            first = trio.run(_probe)
        with deterministic(7):
            again = trio.run(_probe)
    except AttributeError as exc:
        raise TrioChangedError(f"Trio's private parts differ: {exc}") from exc
    if first != again:
        raise TrioChangedError(f"one seed gave two schedules: {first} and {again}")


def self_test_version() -> None:
    """Check the version alone, for whoever is inside a run already.

    :raises TrioChangedError: when it is another one than was proven.
    """
    if not trio.__version__.startswith(PROVEN):
        raise TrioChangedError(
            f"expected Trio {PROVEN}x, got {trio.__version__}: check"
            f" {__name__} against its source, then raise PROVEN"
        )


def _expect(what: str, holds: bool) -> None:
    if not holds:
        raise TrioChangedError(f"Trio {trio.__version__}: {what} no longer holds")


async def _probe() -> list[int]:
    order: list[int] = []
    _expect("no async generator lives at first", living_async_generators() == 0)

    async def child(number: int) -> None:
        order.append(number)
        with trio.CancelScope(shield=number == 0):
            await trio.sleep(60)

    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope
        _expect("an open nursery's scope is entered", entered(scope))
        for number in range(6):
            nursery.start_soon(child, number)
        await trio.testing.wait_all_tasks_blocked()
        below = tasks_below(scope)
        children = [task for task in below if task.name.endswith("child")]
        _expect("tasks below a scope are found", len(children) == 6)
        _expect("they are ordered by birth", children == sorted(below, key=birth)[1:])
        _expect("scopes run outside in", scope in scopes_of(children[0]))
        _expect("sleepers await", all(map(awaiting, children)))
        _expect("nothing is cancelled", not is_cancelled(scope))
        scope.cancel(reason="self-test")
        shielded, other = children[:2]
        _expect("a shield is seen", len(shields_of(shielded)) == 1)
        _expect("an open scope is no shield", not shields_of(other))
        _expect("a cancel is seen", is_cancelled(scope))
        _expect("its reason is kept", reason_of(scope) == "self-test")
        _expect("a sleeper receives Cancelled", pending_cancelled(other) is not None)
        _expect("it is due to run", not awaiting(other))
        _expect("a shield holds", not effectively_cancelled(shielded))
        lift_shields(scope)
        _expect("a shield can be lifted", pending_cancelled(shielded) is not None)
    return order

"""Trio's private parts that a trace reads, in one place.

Trio's instruments show steps, but neither cancel scopes nor what a task will receive
when it resumes. Nothing here changes what a program does. In particular a scope's state
is read from `_cancel_called`: the public `cancel_called` cancels a scope whose deadline
has passed. `trio_sweep` reads more, for tests, and has a module of its own.
"""

from __future__ import annotations

from typing import Any, Final

import trio

PROVEN: Final = "0.35."
Task = trio.lowlevel.Task


class TrioChangedError(RuntimeError):
    """This version of Trio is not the one whose private parts are known here."""


def scopes_of(task: Task) -> list[trio.CancelScope]:
    """Return the cancel scopes that a task stands in, the outermost first."""
    found = []
    status: Any = task._cancel_status
    while status is not None:
        found.append(status._scope)
        status = status._parent
    found.reverse()
    return found


def is_cancelled(scope: trio.CancelScope) -> bool:
    """Tell whether a scope has been cancelled, without looking at its deadline."""
    return scope._cancel_called


def called_explicitly(scope: trio.CancelScope) -> bool:
    """Tell whether some code cancelled a scope, rather than its deadline.

    Each `trio.sleep` that ends is a deadline's cancel of its own scope.
    """
    why = scope._cancel_reason
    return scope._cancel_called and why is not None and why.source != "deadline"


def over(task: Task) -> bool:
    """Tell whether a task has run to its end."""
    return getattr(task.coro, "cr_frame", None) is None


def pending_cancelled(task: Task) -> trio.Cancelled | None:
    """Return the Cancelled that a scheduled task will receive in its next step."""
    error = getattr(task._next_send, "error", None)
    return error if isinstance(error, trio.Cancelled) else None


def check_version() -> None:
    """Check the version: `tests/tracing` has tried these parts on this one.

    :raises TrioChangedError: if it is another one.
    """
    if not trio.__version__.startswith(PROVEN):
        raise TrioChangedError(
            f"expected Trio {PROVEN}x, got {trio.__version__}: check"
            f" {__name__} against its source, then raise PROVEN"
        )

"""What every task of this Trio run waits for, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio


def stacks() -> Iterator[str]:
    """Yield each task's name and the functions it is in, the innermost last."""
    todo = [trio.lowlevel.current_root_task()]
    while todo:
        task = todo.pop()
        if task is None:
            continue
        todo += [child for n in task.child_nurseries for child in n.child_tasks]
        yield f"{task.name}: " + " > ".join(_functions(task.coro))


def _functions(awaited: Any) -> Iterator[str]:
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            owner = frame.f_locals.get("self")
            said = f" of {owner}" if type(owner).__name__ == "Connection" else ""
            yield f"{frame.f_code.co_qualname}:{frame.f_lineno}{said}"
        awaited = getattr(awaited, "cr_await", None) or getattr(
            awaited, "gi_yieldfrom", None
        )

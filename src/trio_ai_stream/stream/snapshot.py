"""What a live stream is made of at this moment: tasks, nurseries, scopes; read only.

Trio's public introspection (`Nursery.child_tasks`, `Task.child_nurseries`) gives the
tree, the stream gives its labelled scopes. Nothing is asked whether it was cancelled:
`CancelScope.cancel_called` is no pure read, it cancels a scope whose deadline is past.
"""

from __future__ import annotations

import math
from typing import Final

import trio
from msgspec import Struct

from trio_ai_stream.stream.stream import Stream

# A stream has some five tasks; more would be a bug, and a snapshot must stay small.
MAX_CHILDREN: Final = 16
MAX_DEPTH: Final = 6


class ScopeView(Struct, frozen=True):
    """One cancel scope; `due` is on Trio's clock, None without a deadline."""

    label: str
    due: float | None
    shield: bool = False


class NurseryView(Struct, frozen=True):
    """One open nursery; `due` is its own scope's deadline."""

    label: str
    due: float | None
    scopes: list[ScopeView]
    tasks: list[TaskView]


class TaskView(Struct, frozen=True):
    """One task and the nurseries that it has open, outermost first.

    `scopes` are those that it has entered outside of the stream's nursery.
    """

    name: str
    nurseries: list[NurseryView]
    scopes: list[ScopeView] = []


class StreamView(Struct, frozen=True):
    """One live stream; times are on Trio's clock, in seconds.

    `elsewhere` is one of another process; it has no `task` then.
    """

    id: str
    state: str
    outcome: str | None
    endpoint: str
    model: str
    began_at: float
    attempts: int
    events: int
    task: TaskView | None
    holds_upstream: bool = False
    elsewhere: bool = False
    owner: str = ""


def snapshot(stream: Stream, *, tree: bool = True) -> StreamView:
    """Return the state of `stream`; changes nothing and never awaits.

    Without its `tree` a stream costs a tenth.
    """
    nursery = stream.nursery
    task = stream.rest_task if nursery is None else nursery.parent_task
    return StreamView(
        id=stream.request_id,
        state=stream.shown_state,
        outcome=None if stream.ending is None else stream.ending.outcome,
        endpoint=stream.endpoint,
        model=stream.request.model,
        began_at=stream.began_at,
        attempts=stream.attempts,
        events=stream.events,
        holds_upstream=stream.response is not None,
        owner=stream.owner,
        task=_task(stream, task, 0) if tree and task is not None else None,
    )


def _task(stream: Stream, task: trio.lowlevel.Task, depth: int) -> TaskView:
    nurseries = task.child_nurseries[:MAX_CHILDREN] if depth < MAX_DEPTH else []
    return TaskView(
        _short(task.name),
        [_nursery(stream, n, depth) for n in nurseries],
        _scopes(stream) if task is stream.rest_task else [],
    )


def _nursery(stream: Stream, nursery: trio.Nursery, depth: int) -> NurseryView:
    own = nursery is stream.nursery
    tasks = sorted(nursery.child_tasks, key=lambda task: task.name)[:MAX_CHILDREN]
    return NurseryView(
        label=_label(stream, nursery),
        due=_due(nursery.cancel_scope.deadline),
        scopes=_scopes(stream) if own else [],
        tasks=[_task(stream, task, depth + 1) for task in tasks],
    )


def _label(stream: Stream, nursery: trio.Nursery) -> str:
    """Name a nursery by its place: before the stream's own stands the request's."""
    own = stream.nursery
    if nursery is own:
        return "stream"
    siblings = [] if own is None else own.parent_task.child_nurseries
    inner = siblings[siblings.index(own) :] if own in siblings else []
    if nursery in inner or (own is not None and nursery not in siblings):
        return "upstream"
    graced = any(task.name.startswith("grace ") for task in nursery.child_tasks)
    return "grace" if graced else "request"


def _scopes(stream: Stream) -> list[ScopeView]:
    return [
        ScopeView(
            label,
            _idle_due(stream) if label == "idle" else _due(scope.deadline),
            scope.shield,
        )
        for label, scope in stream.scopes.items()
    ]


def _idle_due(stream: Stream) -> float | None:
    """Return when the timers would cancel the idle scope, which has no deadline."""
    timers = stream.timers
    if timers is None or timers.waiting_since is None:
        return None
    return timers.waiting_since + stream.budgets.idle_s


def _due(deadline: float) -> float | None:
    return None if math.isinf(deadline) else deadline


def _short(name: str) -> str:
    """Return a task's name without its module path, which Trio puts before it."""
    head, space, rest = name.partition(" ")
    return ".".join(head.split(".")[-2:]) + space + rest

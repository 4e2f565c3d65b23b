"""Names for what a suspended program stands in: source sites and cancel scopes.

A scope has no name of its own. It is called after the function that opened it and the
variable that holds it there, `stream/relay.py:_Conversation._converse:idle`, or, if
none does, its number among that function's scopes. No line numbers, so a label in a
replay token outlives an edit elsewhere in the file.
"""

from __future__ import annotations

from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import trio

import trio_ai_stream
from trio_ai_stream.tracing import internals

ROOT: Final = str(Path(trio_ai_stream.__file__).parent) + "/"
SWEPT: Final = ("http/", "stream/", "upstream/", "admission/")
Site = tuple[str, int]  # (file below the package, line)

_swept: dict[CodeType, str | None] = {}


def swept_file(code: CodeType) -> str | None:
    """Return the file of a code object below the package, if it is of the program."""
    try:
        return _swept[code]
    except KeyError:
        path = code.co_filename.removeprefix(ROOT)
        mine = path.startswith(SWEPT) and path != code.co_filename
        _swept[code] = path if mine else None
        return _swept[code]


def sites_of(task: internals.Task) -> tuple[Site, ...]:
    """Return where in the program a task is suspended, outermost first."""
    found = []
    for frame, line in internals.frames_of(task):
        if (path := swept_file(frame.f_code)) is not None:
            found.append((path, line))
    return tuple(found)


def labelled_scopes(outermost: trio.CancelScope) -> dict[str, trio.CancelScope]:
    """Return the program's scopes below one scope, by label, in order of tasks."""
    found: dict[str, trio.CancelScope] = {}
    known: set[int] = {id(outermost)}
    for task in internals.tasks_below(outermost):
        scopes = internals.scopes_of(task)
        if outermost not in scopes:
            continue
        frames = [
            (path, frame)
            for frame, _ in internals.frames_of(task)
            if (path := swept_file(frame.f_code)) is not None
        ]
        names = _held(frames)
        anonymous = 0
        for scope in scopes[scopes.index(outermost) + 1 :]:
            label = names.get(id(scope))
            if label is None and frames:
                path, frame = frames[-1]
                label = f"{path}:{frame.f_code.co_qualname}:{anonymous}"
                anonymous += 1
            if label is not None and id(scope) not in known:
                known.add(id(scope))
                found.setdefault(label, scope)
    return found


def _held(frames: list[tuple[str, FrameType]]) -> dict[int, str]:
    """Map each scope that a variable of these frames holds to its label."""
    held: dict[int, str] = {}
    for path, frame in frames:
        for name, value in frame.f_locals.items():
            scope = _scope_in(value)
            if scope is not None:
                held.setdefault(id(scope), f"{path}:{frame.f_code.co_qualname}:{name}")
    return held


def _scope_in(value: Any) -> trio.CancelScope | None:
    if isinstance(value, trio.CancelScope):
        return value
    if isinstance(value, trio.Nursery):
        return value.cancel_scope
    scope = getattr(value, "stop_scope", None)
    return scope if isinstance(scope, trio.CancelScope) else None

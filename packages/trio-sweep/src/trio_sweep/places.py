"""Names for where a suspended program is: source places, tasks and cancel scopes.

A cancel scope has no name of its own. It is called after the variable that holds it
(`client.py:Client.ask:patience`), or after the function that opened it and its number
there. Labels hold no line numbers, so a token outlives an edit elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import outcome
import trio

from trio_sweep import internals

Site = tuple[str, int]  # (file as Python names it, line)


def _folder_of(package: str) -> tuple[str, ...]:
    """Return where a package is, if it is installed; it is not imported."""
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else spec.submodule_search_locations or []
    return tuple(f"{folder}{os.sep}" for folder in folders)


# Programs are written for these: what they do inside is no place of a program.
_TRIO, _ANYIO = _folder_of("trio"), _folder_of("anyio")
# Frames below these are the machinery of waiting, not the program.
_MACHINERY = (
    *_TRIO,
    *_ANYIO,
    f"{Path(outcome.__file__).parent}{os.sep}",
    f"{Path(__file__).parent}{os.sep}",
    contextlib.__file__,
    f"{Path(importlib.__file__).parent}{os.sep}",
    "<frozen importlib",
)
_CORE = (f"{_TRIO[0]}_core{os.sep}", *_MACHINERY[len(_TRIO + _ANYIO) :])
_openers: WeakKeyDictionary[trio.CancelScope, CodeType] = WeakKeyDictionary()
_of_handles: WeakSet[trio.CancelScope] = WeakSet()


@functools.cache
def is_machinery(filename: str) -> bool:
    """Tell whether a file is Trio's, AnyIO's or this package's."""
    return filename.startswith(_MACHINERY)


@functools.cache
def short(filename: str) -> str:
    """Return a file's path from its outermost package on: equal on all machines."""
    path = Path(filename)
    top = path.parent
    # The parent of "." is ".": that is where made code lies, such as "<string>".
    while top != top.parent and (top / "__init__.py").exists():
        top = top.parent
    return path.relative_to(top).as_posix()


def name_of(task: internals.Task) -> str:
    """Return a task's name without its module."""
    return task.name.rsplit(".", 1)[-1]


def sites_of(task: internals.Task) -> list[Site]:
    """Return every line at which a task is suspended, the outermost first."""
    return [
        (frame.f_code.co_filename, line) for frame, line in task.iter_await_frames()
    ]


def where(task: internals.Task) -> str:
    """Return the innermost place of the program at which a task is suspended.

    A task that a library runs alone is in that library, above Trio's core.
    """
    frames = list(task.iter_await_frames())
    for hidden in (_MACHINERY, _CORE):
        for frame, line in reversed(frames):
            code = frame.f_code
            if not code.co_filename.startswith(hidden):
                return f"{short(code.co_filename)}:{line} in {code.co_qualname}"
    return f"inside {frames[0][0].f_code.co_qualname}" if frames else "its last step"


def program_scopes(task: internals.Task) -> list[trio.CancelScope]:
    """Return the scopes around a task, without that by which `trio.sleep` ends."""
    scopes = internals.scopes_of(task)
    sleeps = any(f.f_code.co_name == "sleep_until" for f, _ in task.iter_await_frames())
    return scopes[:-1] if sleeps else scopes


def shielded_by_library(task: internals.Task) -> bool:
    """Tell whether a task waits in a function of Trio or AnyIO that shields itself.

    `Condition.wait` is one: it takes its lock back whatever happens.
    """
    return any(
        frame.f_code.co_filename.startswith(_TRIO + _ANYIO)
        and any("shield" in one for one in frame.f_code.co_consts if type(one) is tuple)
        for frame, _ in task.iter_await_frames()
    )


def note_opener(scope: trio.CancelScope, frame: FrameType | None) -> None:
    """Note the function of the program that enters a scope, for its label.

    There is none for a scope of a task that a library runs alone: beyond the run's loop
    is who has called the sweep.
    """
    caller = None if frame is None else frame.f_back
    if caller is not None and caller.f_code.co_qualname == "TaskHandle._run_coro":
        _of_handles.add(scope)
    while frame is not None and is_machinery(frame.f_code.co_filename):
        frame = None if internals.is_run_loop(frame) else frame.f_back
    if frame is not None:
        _openers[scope] = frame.f_code


def opener_of(scope: trio.CancelScope) -> CodeType | None:
    """Return the function of the program that entered a scope, if it was noted."""
    return _openers.get(scope)


def labelled_scopes(
    outermost: trio.CancelScope, tasks: list[internals.Task]
) -> dict[str, trio.CancelScope]:
    """Return the scopes inside `outermost` that `tasks` stand in, by label.

    Without those that AnyIO opens around each task: a program that keeps no TaskHandle,
    as most do, cannot cancel them, and is not written for it.
    """
    found: dict[str, trio.CancelScope] = {}
    known = {id(outermost)}
    for task in tasks:
        scopes = program_scopes(task)
        if outermost not in scopes:
            continue
        frames = [
            frame
            for frame, _ in task.iter_await_frames()
            if not is_machinery(frame.f_code.co_filename)
        ]
        held = _held_by(frames)
        anonymous: Counter[str] = Counter()
        for scope in scopes[scopes.index(outermost) + 1 :]:
            label = held.get(id(scope))
            if label is None:
                code = _openers.get(scope)
                opener = name_of(task) if code is None else _function(code)
                label = f"{opener}:{anonymous[opener]}"
                anonymous[opener] += 1
            if id(scope) not in known and scope not in _of_handles:
                known.add(id(scope))
                found[_unused(label, found)] = scope
    return found


def _unused(label: str, taken: dict[str, trio.CancelScope]) -> str:
    number = 1
    while (label if number == 1 else f"{label}#{number}") in taken:
        number += 1
    return label if number == 1 else f"{label}#{number}"


def _function(code: CodeType) -> str:
    return f"{short(code.co_filename)}:{code.co_qualname}"


def _held_by(frames: list[FrameType]) -> dict[int, str]:
    """Map each scope that a variable of these frames holds to its label."""
    held: dict[int, str] = {}
    for frame in frames:
        for name, value in frame.f_locals.items():
            scope = _scope_in(value)
            if scope is not None:
                held.setdefault(id(scope), f"{_function(frame.f_code)}:{name}")
    return held


def _scope_in(value: Any) -> trio.CancelScope | None:
    if isinstance(value, trio.Nursery):
        return value.cancel_scope
    return value if isinstance(value, trio.CancelScope) else None

"""All of Trio's private parts that this package uses, and a self-test of them.

Trio's instruments show steps, but neither cancel scopes nor what a task receives when
it resumes; its scheduler is deterministic only by a private switch; and its threads
run whenever the system lets them. Whatever needs more than Trio's public API asks this
module, so that a new version of Trio can break one file only, and `self_test` tells
at once that it did.

Looking changes nothing. In particular a scope's state is read from `_cancel_called`,
because the public `cancel_called` cancels a scope whose deadline has passed.
"""

from __future__ import annotations

import contextlib
import ctypes
import random
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, NoReturn

import outcome
import trio
import trio._threads
import trio.testing
from trio._core import _run

from trio_sweep.errors import TrioChangedError

PROVEN: Final = ("0.33.", "0.34.", "0.35.")
_threads: Any = trio._threads
Task = trio.lowlevel.Task
ThreadStarter = Callable[[Callable[[], Any], Callable[[Any], object], Any], None]


@contextlib.contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Make the order in which tasks run a function of `seed` alone, for runs inside.

    Python's own `random` is seeded as well, for programs that add jitter.
    """
    before = _run._ALLOW_DETERMINISTIC_SCHEDULING
    ours, trios = random.getstate(), _run._r.getstate()
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    _run._r.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        _run._r.setstate(trios)
        random.setstate(ours)


@contextlib.contextmanager
def thread_hooks(
    start: ThreadStarter, ask: Callable[[Callable[..., Any], Any, Any], Any]
) -> Iterator[None]:
    """Let `start` start Trio's worker threads, and `ask` carry `from_thread` calls.

    `ask` gets Trio's own function and its two arguments: token and message.
    """
    original, original_start = (
        _threads._send_message_to_trio,
        _threads.start_thread_soon,
    )

    def send(token: Any, message: Any) -> Any:
        return ask(original, token, message)

    _threads._send_message_to_trio = send
    _threads.start_thread_soon = start
    try:
        yield
    finally:
        _threads._send_message_to_trio = original
        _threads.start_thread_soon = original_start


def thread_starter() -> ThreadStarter:
    """Return the function that starts worker threads now."""
    starter: ThreadStarter = _threads.start_thread_soon
    return starter


def replace_reply(message: Any, reply: object) -> None:
    """Let the answer to a `from_thread` call be put into `reply`."""
    object.__setattr__(message, "queue", reply)


@contextlib.contextmanager
def noting_scopes(
    note: Callable[[trio.CancelScope, FrameType], object],
) -> Iterator[None]:
    """Call `note` with each scope that is entered meanwhile, and the frame there."""
    original: Any = trio.CancelScope.__enter__

    def enter(scope: trio.CancelScope) -> trio.CancelScope:
        note(scope, sys._getframe(1))
        entered: trio.CancelScope = original(scope)
        return entered

    trio.CancelScope.__enter__ = enter  # type: ignore[method-assign]
    try:
        yield
    finally:
        trio.CancelScope.__enter__ = original  # type: ignore[method-assign]


def is_run_loop(frame: FrameType) -> bool:
    """Tell whether a frame is the loop that steps the tasks of a run."""
    return frame.f_code is _run.unrolled_run.__code__


@contextlib.contextmanager
def outside_of_tasks() -> Iterator[None]:
    """Let no task be the current one, as between two steps.

    In an instrument it is the one that has just stepped; what closes a socket would
    take that one for itself.
    """
    task = trio.lowlevel.current_task()
    del _run.GLOBAL_RUN_CONTEXT.task
    try:
        yield
    finally:
        _run.GLOBAL_RUN_CONTEXT.task = task


def birth(task: Task) -> int:
    """Return a number that orders tasks by when they were made."""
    return task._counter


def scopes_of(task: Task) -> list[trio.CancelScope]:
    """Return the cancel scopes around a task, the outermost first."""
    found = []
    status: Any = task._cancel_status
    while status is not None:
        found.append(status._scope)
        status = status._parent
    found.reverse()
    return found


def is_shield(scope: trio.CancelScope) -> bool:
    """Tell whether a scope keeps cancels from outside away."""
    return scope._shield


def tasks_below(scope: trio.CancelScope) -> list[Task]:
    """Return all tasks in a scope, shielded or not, the oldest first."""
    found: list[Task] = []
    todo: list[Any] = [] if scope._cancel_status is None else [scope._cancel_status]
    while todo:
        status = todo.pop()
        found += status._tasks
        todo += status._children
    return sorted(found, key=birth)


def entered(scope: trio.CancelScope) -> bool:
    """Tell whether a scope is open now."""
    return scope._cancel_status is not None


def is_cancelled(scope: trio.CancelScope) -> bool:
    """Tell whether a scope was cancelled, without looking at its deadline."""
    return scope._cancel_called


def called_explicitly(scope: trio.CancelScope) -> bool:
    """Tell whether code cancelled a scope, not its deadline: `sleep` ends by one."""
    why = scope._cancel_reason
    return scope._cancel_called and why is not None and why.source != "deadline"


def effectively_cancelled(task: Task) -> bool:
    """Tell whether the next checkpoint of a task raises Cancelled."""
    status = task._cancel_status
    return status is not None and bool(status.effectively_cancelled)


def awaiting(task: Task) -> bool:
    """Tell whether a task waits for something, rather than being due to run."""
    return task._next_send_fn is None


def over(task: Task) -> bool:
    """Tell whether a task has ended."""
    return getattr(task.coro, "cr_frame", None) is None


def pending_cancelled(task: Task) -> trio.Cancelled | None:
    """Return the Cancelled that a task which is due will get in its next step."""
    error = getattr(task._next_send, "error", None)
    return error if isinstance(error, trio.Cancelled) else None


def is_of_trio(task: Task) -> bool:
    """Tell whether a task is one of Trio's own: of its start, or its entry queue."""
    return task.name == "<init>" or "trio._core" in task.name


def lift_shields(scope: trio.CancelScope) -> None:
    """Take the shield off every scope below this one: the way out of a hang."""
    for task in tasks_below(scope):
        for inner in scopes_of(task):
            if inner.shield:
                inner.shield = False


def end_by_force(task: Task, error: BaseException) -> None:
    """Let a task that is about to step end with `error`; its code does not run again.

    Call it from `before_task_step`. It ends code that catches every exception. The
    coroutine is kept for ever: to close it would let that code run on.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(task.coro))

    def instead(_value: object) -> NoReturn:
        raise error

    task._next_send_fn = instead


def wake_by_force(task: Task, error: BaseException) -> None:
    """Make a task due that waits for what does not come and takes no cancel."""
    trio.lowlevel.reschedule(task, outcome.Error(error))


def living_async_generators() -> list[str]:
    """Name the async generators of this run that have begun and not ended."""
    alive = _run.GLOBAL_RUN_CONTEXT.runner.asyncgens.alive
    return sorted(one.__qualname__ for one in alive if one.ag_frame is not None)


def check_version() -> None:
    """Check the version alone, for whoever is inside a run.

    :raises TrioChangedError: when nobody has read that version's source for this.
    """
    if not trio.__version__.startswith(PROVEN):
        known = ", ".join(f"{one}x" for one in PROVEN)
        raise TrioChangedError(
            f"expected Trio {known}; got {trio.__version__}: compare {__name__}"
            " with its source, then add it to PROVEN"
        )


def self_test() -> None:
    """Check every private part that is used here, on a small program.

    :raises TrioChangedError: naming what differs; then no result could be trusted.
    """
    check_version()
    try:
        schedules, noted = [], set()
        for _ in range(2):
            with (
                deterministic(7),
                thread_hooks(_threads.start_thread_soon, _ask),
                noting_scopes(lambda _, frame: noted.add(frame.f_code.co_name)),
            ):
                schedules.append(trio.run(_probe))
    except AttributeError as exc:
        raise TrioChangedError(f"Trio's private parts differ: {exc}") from exc
    _expect("one seed gives one schedule", schedules[0] == schedules[1])
    _expect("scopes are entered by __enter__", {"child", "__aenter__"} <= noted)


def _ask(original: Callable[..., Any], token: Any, message: Any) -> Any:
    _expect("a call from a thread has a reply queue", hasattr(message, "queue"))
    return original(token, message)


def _is_below_the_loop() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None and not is_run_loop(frame):
        frame = frame.f_back
    return frame is not None


def _expect(what: str, holds: bool) -> None:
    if not holds:
        raise TrioChangedError(f"Trio {trio.__version__}: no longer true: {what}")


class _ForceError(Exception):
    """What the self-test ends tasks with."""


class _Force(trio.abc.Instrument):
    def before_task_step(self, task: Task) -> None:
        if task.name == "stubborn" and pending_cancelled(task) is not None:
            end_by_force(task, _ForceError())


async def _probe() -> list[int]:
    """Go through the private parts; return the order in which six tasks began."""
    order: list[int] = []
    _expect("no async generator lives at first", living_async_generators() == [])
    task = trio.lowlevel.current_task()
    _expect("a task runs below the loop", _is_below_the_loop())
    with outside_of_tasks():
        _expect("there may be no current task", not trio.lowlevel.in_trio_task())
    _expect("it comes back", trio.lowlevel.current_task() is task)

    async def child(number: int) -> None:
        order.append(number)
        with trio.CancelScope(shield=number == 0):
            await trio.sleep(60)

    async def stubborn() -> None:
        while True:
            try:
                await trio.sleep(60)
            except BaseException:  # noqa: S112, ASYNC103  # to be ended by force
                continue  # noqa: ASYNC104

    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope
        for number in range(6):
            nursery.start_soon(child, number)
        await trio.testing.wait_all_tasks_blocked()
        below = tasks_below(scope)
        children = [task for task in below if task.name.endswith("child")]
        _expect("an open scope is seen as such", entered(scope))
        _expect("the tasks below a scope are found", len(children) == 6)
        _expect("by age", children == sorted(children, key=birth))
        _expect("scopes run from the outside in", scope in scopes_of(children[0])[:-1])
        _expect("who sleeps awaits", all(map(awaiting, children)))
        _expect("nothing is cancelled yet", not is_cancelled(scope))
        scope.cancel(reason="self-test")
        shielded, other = children[:2]
        _expect("a shield is seen", any(map(is_shield, scopes_of(shielded))))
        _expect("no shield is seen", not any(map(is_shield, scopes_of(other))))
        _expect("a cancel is seen", is_cancelled(scope) and called_explicitly(scope))
        _expect("Cancelled is on its way", pending_cancelled(other) is not None)
        _expect("who gets it is due", not awaiting(other))
        _expect("a shield holds", not effectively_cancelled(shielded))
        lift_shields(scope)
        _expect("a shield can be lifted", pending_cancelled(shielded) is not None)

    answer = await trio.to_thread.run_sync(trio.from_thread.run_sync, order.copy)
    _expect("threads go through the hooks", answer == order)
    instrument = _Force()
    trio.lowlevel.add_instrument(instrument)
    ended = False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stubborn, name="stubborn")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    except* _ForceError:
        ended = True
    _expect("a task can be ended by force", ended)
    trio.lowlevel.remove_instrument(instrument)
    return order

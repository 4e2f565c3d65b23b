"""The runs of one seed, spread over processes; their results come back in order."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn, TypeVar

from trio_sweep.errors import RunFailedError

T = TypeVar("T")


def spread(
    work: Callable[[int], T],
    count: int,
    jobs: int,
    name: Callable[[int], str] = str,
) -> Iterator[T]:
    """Yield `work(0)` to `work(count - 1)`, in this order, from `jobs` processes.

    The processes are forked, so `work` may be a closure; what it returns is pickled.
    Where Python cannot fork, one process does everything. `name` tells of a number
    what it stands for, for a message.

    :raises RunFailedError: when a process failed or ended before its work was done.
    """
    if min(jobs, count) < 2 or not hasattr(os, "fork"):
        yield from map(work, range(count))
        return
    workers: list[tuple[int, Connection]] = []
    try:
        # A Ctrl-C waits until the last child ignores it: it is for this process alone.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            shares = (range(first, count, jobs) for first in range(jobs))
            workers.extend(_fork(work, share, name) for share in shares)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield from _in_order(workers, count, name)
    finally:
        for process, ours in workers:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            ours.close()


def default_jobs() -> int:
    """Return how many processes this one may keep busy."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _fork(
    work: Callable[[int], Any], numbers: range, name: Callable[[int], str]
) -> tuple[int, Connection]:
    """Start a process for these runs; return its number and its results' pipe."""
    ours, theirs = Pipe(duplex=False)
    with warnings.catch_warnings():
        # Idle threads of Trio's cache hold no lock that a child would wait for.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Not a `multiprocessing.Process`: a program can ask whether it is in one (as
        # ours does), and would then behave as a worker beside its siblings.
        process = os.fork()
    if process == 0:
        _work(work, numbers, name, theirs)
    theirs.close()
    return process, ours


def _work(
    work: Callable[[int], Any],
    numbers: range,
    name: Callable[[int], str],
    results: Connection,
) -> NoReturn:
    """Do a process' part and end it, whatever happens."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number in numbers:
            try:
                results.send((number, work(number), None))
            except RunFailedError as exc:
                results.send((number, None, str(exc)))
                break
            # Ctrl-C is ignored here: a KeyboardInterrupt is the program's own.
            except (Exception, KeyboardInterrupt, SystemExit) as exc:
                why = f"{name(number)} could not be made: {exc!r}"
                results.send((number, None, why))
                break
    finally:
        os._exit(0)


def _in_order(
    workers: list[tuple[int, Connection]], count: int, name: Callable[[int], str]
) -> Iterator[Any]:
    pipes = {ours: process for process, ours in workers}
    due = {ours: first for first, (_, ours) in enumerate(workers)}  # what comes next
    jobs = len(workers)
    early: dict[int, Any] = {}
    failed: dict[int, str] = {}  # told in its order, so that each sweep tells the same
    number = 0
    while number < count:
        if number in failed:
            raise RunFailedError(failed[number])
        if number in early:
            yield early.pop(number)
            number += 1
            continue
        for pipe in wait(list(pipes)):
            assert isinstance(pipe, Connection)
            try:
                which, result, error = pipe.recv()
            except EOFError:
                lost, process = due[pipe], pipes.pop(pipe)
                workers.remove((process, pipe))
                pipe.close()
                how = _end(process)
                if lost < count and lost not in failed:
                    failed[lost] = f"expected {name(lost)} to end; {how}"
                continue
            if error is not None:
                failed[which] = error
                continue
            due[pipe] += jobs
            early[which] = result


def _end(process: int) -> str:
    """Wait for a process that has closed its pipe, and say how it ended."""
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended itself with status {code}"

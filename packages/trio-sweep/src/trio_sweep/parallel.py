"""The runs of one seed, spread over processes; their results come back in order."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


def spread(work: Callable[[int], T], count: int, jobs: int) -> Iterator[T]:
    """Yield `work(0)` to `work(count - 1)`, in this order, from `jobs` processes.

    The processes are forked, so `work` may be a closure; what it returns is pickled.
    Where Python cannot fork, one process does everything.
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
            workers.extend(_fork(work, share) for share in shares)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield from _in_order({ours for _, ours in workers}, count)
    finally:
        for process, ours in workers:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            ours.close()


def default_jobs() -> int:
    """Return how many processes this one may keep busy."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _fork(work: Callable[[int], Any], numbers: range) -> tuple[int, Connection]:
    """Start a process for these runs; return its number and its results' pipe."""
    ours, theirs = Pipe(duplex=False)
    with warnings.catch_warnings():
        # Idle threads of Trio's cache hold no lock that a child would wait for.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Not a `multiprocessing.Process`: a program can ask whether it is in one (as
        # ours does), and would then behave as a worker beside its siblings.
        process = os.fork()
    if process == 0:
        _work(work, numbers, theirs)
    theirs.close()
    return process, ours


def _work(work: Callable[[int], Any], numbers: range, results: Connection) -> NoReturn:
    """Do a process' part and end it, whatever happens."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number in numbers:
            try:
                results.send((number, work(number), None))
            except Exception as exc:
                results.send((number, None, f"{type(exc).__name__}: {exc}"))
                break
    finally:
        os._exit(0)


def _in_order(pipes: set[Connection], count: int) -> Iterator[Any]:
    early: dict[int, Any] = {}
    number = 0
    while number < count:
        if number in early:
            yield early.pop(number)
            number += 1
            continue
        if not pipes:
            raise RuntimeError("a process of the sweep ended before its work was done")
        for pipe in wait(list(pipes)):
            assert isinstance(pipe, Connection)
            try:
                which, result, error = pipe.recv()
            except EOFError:
                pipes.discard(pipe)
                continue
            if error is not None:
                raise RuntimeError(f"a process of the sweep failed: {error}")
            early[which] = result

"""Worker threads in lockstep: one at a time, and only while Trio would wait.

A thread that runs when the system lets it makes two runs of one seed differ. Here a
thread of `trio.to_thread` starts when every task has stepped, and Trio waits until it
has ended or has asked for something by `trio.from_thread`; then the next one runs. So a
thread takes no virtual time, and a task that waits for one is suspended for at least
one boundary, at which a cancel can meet it.
"""

from __future__ import annotations

import contextlib
import enum
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import outcome

from trio_sweep import internals

PATIENCE_S: Final = 10.0  # real seconds for one thread to come to rest


class _State(enum.Enum):
    READY = "ready"  # to start, or to go on with an answer
    RUNNING = "running"
    ASKING = "asking"
    OVER = "over"


class _Worker:
    """One job of a thread."""

    def __init__(self, name: str, start: Callable[[], None]) -> None:
        self.name = name
        self.start: Callable[[], None] | None = start
        self.state = _State.READY
        self.turn = threading.Semaphore(0)


class _Reply:
    """Takes the answer to a call from a thread; the thread goes on at its turn."""

    def __init__(self, worker: _Worker, lockstep: Lockstep) -> None:
        self._worker = worker
        self._lockstep = lockstep
        self._value: Any = None

    def put_nowait(self, value: object) -> None:
        self._value = value
        self._worker.state = _State.READY

    def get(self) -> Any:
        self._lockstep.rest(self._worker, _State.ASKING)
        self._worker.turn.acquire()
        return self._value


class Lockstep:
    """The worker threads of one run."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._rested = threading.Condition()
        self._of_thread = threading.local()
        self._started: Any = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Take over the threads of the Trio run inside."""
        self._started = internals.thread_starter()
        with internals.thread_hooks(self._start, self._ask):
            yield

    @property
    def left(self) -> list[str]:
        """The names of the jobs that have not ended."""
        return [one.name for one in self._workers if one.state is not _State.OVER]

    def run(self) -> str | None:
        """Let each thread run that can; return the name of one that does not rest."""
        for worker in list(self._workers):
            if worker.state is not _State.READY:
                continue
            worker.state = _State.RUNNING
            if worker.start is not None:
                start, worker.start = worker.start, None
                start()
            else:
                worker.turn.release()
            with self._rested:
                if not self._rested.wait_for(
                    lambda one=worker: one.state is not _State.RUNNING,  # type: ignore[misc]
                    PATIENCE_S,
                ):
                    return worker.name
        self._workers = [one for one in self._workers if one.state is not _State.OVER]
        return None

    def rest(self, worker: _Worker, state: _State) -> None:
        """Note, in the thread itself, that it has come to rest."""
        with self._rested:
            worker.state = state
            self._rested.notify_all()

    def _start(
        self, fn: Callable[[], Any], deliver: Callable[[Any], object], name: Any = None
    ) -> None:
        def job() -> Any:
            self._of_thread.worker = worker
            try:
                return fn()
            finally:
                del self._of_thread.worker

        def done(result: outcome.Outcome[Any]) -> None:
            deliver(result)
            self.rest(worker, _State.OVER)

        worker = _Worker(name or "thread", lambda: self._started(job, done, name))
        self._workers.append(worker)

    def _ask(self, original: Callable[..., Any], token: Any, message: Any) -> Any:
        worker = getattr(self._of_thread, "worker", None)
        if worker is not None:
            internals.replace_reply(message, _Reply(worker, self))
        return original(token, message)

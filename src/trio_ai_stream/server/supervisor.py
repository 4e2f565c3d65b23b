"""Several worker processes: replaced when they die or hang, drained together.

A supervisor and each worker share a socket. The worker's loop writes a byte at fixed
times, so one that is blocked is noticed; it writes others once it serves, has done a
reload, or refuses to start. The supervisor's orders go the other way.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, NoReturn

import trio

from trio_ai_stream.server.signals import Notifier, received

log = logging.getLogger("trio_ai_stream.supervisor")

# Orders to a worker, one byte each.
DRAIN: Final = b"d"
SKIP: Final = b"s"
RELOAD: Final = b"r"
# What a worker writes, one byte each.
BEAT: Final = b"."
READY: Final = b"!"
# Control characters, which no stack has that a worker writes between them.
RELOAD_DONE: Final = b"\x01"
# Around the sentence that says why.
REFUSED: Final = b"\x02"
# The worker's end of the socket to its supervisor.
LINK_VARIABLE: Final = "TRIO_AI_STREAM_LINK_FD"
# What became of the worker before it, for the metrics.
REPLACES_VARIABLE: Final = "TRIO_AI_STREAM_REPLACES"

# A worker that dies younger than this has not served anybody.
_YOUNG_S: Final = 5.0
# So many in a row in one slot, and no healthy worker in another: give up.
_YOUNG_DEATHS: Final = 5
# The pause after a young death doubles from one to the next.
_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0

# From the fork to the first beat: imports, on a machine that is busy.
_STARTUP_S: Final = 60.0
# How long a worker may take to write down where it stands.
_STACK_S: Final = 0.5

End = Literal["died", "hung", "not_started"]


@dataclass(slots=True, eq=False)
class _Worker:
    """One worker, from before its start to its end."""

    link: socket.socket
    began: float
    process: trio.Process | None = None
    ready: bool = False
    hung: bool = False
    # Reloads that were ordered and not done yet.
    reloads: int = 0
    _sentence: bytes = b""
    _refusing: bool = False

    @property
    def refusal(self) -> str:
        """Why it cannot serve, as far as it has said that."""
        return self._sentence.decode(errors="replace")

    def hear(self, data: bytes) -> None:
        """Take note of what the worker has written, of which a read may cut anything.

        Between two REFUSED stands a sentence, whose characters are no signs.
        """
        for number, part in enumerate(data.split(REFUSED)):
            if number:
                self._refusing = not self._refusing
            if self._refusing:
                self._sentence = self._sentence + part if number == 0 else part
            else:
                self.ready |= READY in part
                self.reloads -= part.count(RELOAD_DONE)

    @property
    def healthy(self) -> bool:
        """Whether it has served for a while."""
        return self.ready and trio.current_time() - self.began >= _YOUNG_S


class Supervisor:
    """The parent of the workers; it accepts no connection itself."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        descriptors: Sequence[int],
        patience_s: float,
        hang_s: float,
        notifier: Notifier | None = None,
        read_again: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what starts a worker.

        :param descriptors: what each worker inherits, by number.
        :param patience_s: how long workers may take to drain before they are killed.
        :param hang_s: how long a worker's loop may be blocked before it is killed.
        :param read_again: does what SIGHUP asks for, for workers that start later.
        """
        self._command = list(command)
        self._environ = dict(environ)
        self._descriptors = list(descriptors)
        self._patience_s = patience_s
        self._hang_s = hang_s
        self._notifier = notifier or Notifier({})
        self._read_again = read_again
        self._workers: set[_Worker] = set()
        self._draining = trio.Event()
        self._given_up = False
        self._served = False
        self._reloading = False
        self._refusal = ""
        self._refused_with = 0

    @property
    def pids(self) -> list[int]:
        """The workers that live."""
        processes = [worker.process for worker in self._workers]
        return [process.pid for process in processes if process is not None]

    async def run(self, workers: int) -> int:
        """Keep so many workers alive until a signal; return the exit code.

        The code is 0 after a drain, 1 if the workers would not stay alive. If one
        refuses to start, and none has ever served, it is said why; the code is its own.
        """
        with received() as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                nursery.start_soon(self._lose_patience)
                nursery.start_soon(self._notifier.keep_alive)
                async with trio.open_nursery() as slots:
                    for _ in range(workers):
                        slots.start_soon(self._fill_slot)
                nursery.cancel_scope.cancel(reason="all workers have ended")
        if self._refusal:
            refuse_to_start(self._refusal, self._refused_with)
        return 1 if self._given_up else 0

    async def _fill_slot(self) -> None:
        """Fill one slot with one worker after another until the drain."""
        young, pause_s, end = 0, 0.0, ""
        while not self._draining.is_set():
            began = trio.current_time()
            try:
                end = await self._one_worker(end)
            except OSError as exc:  # no process, no memory, no descriptor
                end = "not_started"
                text = "a worker could not be started: %s"
                event = {"event": "worker_not_started"}
                log.error(text, exc, extra=event)  # noqa: TRY400 - it says it all
            if self._draining.is_set():
                return
            # However long a start took that came to nothing: nobody was served.
            failed = end == "not_started" or trio.current_time() - began < _YOUNG_S
            young = young + 1 if failed else 0
            if young >= _YOUNG_DEATHS and not any(w.healthy for w in self._workers):
                self._give_up()
            # Not by a power of two: a slot may fail for days, and that grows for ever.
            pause_s = min(max(_PAUSE_S, 2 * pause_s), _LONGEST_PAUSE_S) if failed else 0
            with trio.move_on_after(pause_s):
                await self._draining.wait()

    async def _one_worker(self, replaces: str) -> End:
        """Run one worker to its end, and return what kind of end it was.

        :raises OSError: it could not be started.
        """
        ours, theirs = socket.socketpair()
        worker = _Worker(ours, trio.current_time())
        # Before the start: an order that is given meanwhile waits in the socket.
        self._workers.add(worker)
        try:
            ours.setblocking(False)
            with theirs:
                process = await trio.lowlevel.open_process(
                    self._command,
                    env={
                        **self._environ,
                        LINK_VARIABLE: str(theirs.fileno()),
                        REPLACES_VARIABLE: replaces,
                    },
                    pass_fds=(*self._descriptors, theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                )
            worker.process = process
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._kill_if_hung, worker, process)
                code = await process.wait()
                nursery.cancel_scope.cancel(reason="the worker has ended")
            with suppress(OSError):  # what it wrote last
                self._heard(worker, ours.recv(65_536))
            if worker.refusal and not (self._served or self._draining.is_set()):
                self._refusal, self._refused_with = worker.refusal, code
                self._order(DRAIN)
            if not self._draining.is_set():
                text, why = "a worker ended with code %s%s; starting another", ""
                if worker.refusal:
                    why = f" ({worker.refusal})"
                log.error(text, code, why, extra={"event": "worker_ended"})
            if worker.hung:
                return "hung"
            return "died" if worker.ready else "not_started"
        finally:
            self._workers.discard(worker)
            ours.close()
            self._look_for_reloaded()

    async def _kill_if_hung(self, worker: _Worker, process: trio.Process) -> None:
        """Listen to a worker's heartbeat, and kill it when it has stopped."""
        link = trio.socket.from_stdlib_socket(worker.link.dup())
        with link:
            await _until_hung(link, self._hang_s, partial(self._heard, worker))
            stack = await _stack_of(process, link)
        text = "worker %d has not turned its loop for %g s; killing it%s"
        where = f"; it stands at\n{stack}" if stack else ""
        log.error(
            text, process.pid, self._hang_s, where, extra={"event": "worker_hung"}
        )
        process.kill()
        worker.hung = True

    def _heard(self, worker: _Worker, data: bytes) -> None:
        served = any(other.ready for other in self._workers)
        worker.hear(data)
        if worker.ready and not served:
            self._notifier.ready()
        self._served |= worker.ready
        self._look_for_reloaded()

    def _look_for_reloaded(self) -> None:
        """Say that a reload is over, once every worker has done it or has ended."""
        if self._reloading and not any(worker.reloads > 0 for worker in self._workers):
            self._reloading = False
            self._notifier.ready()

    def _give_up(self) -> None:
        if not self._given_up:
            self._given_up = True
            text = "workers do not stay alive, and none is healthy; giving up"
            log.critical(text, extra={"event": "workers_given_up"})
            self._order(DRAIN)

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        """Order a reload at SIGHUP; else the drain, and its end at a second signal."""
        async for signum in signals:
            if signum == signal.SIGHUP:
                if self._workers:  # else there is nothing to wait for
                    self._notifier.reloading()
                    self._reloading = True
                try:
                    self._read_again()
                except OSError as exc:
                    text = "workers that start later keep the old settings: %s"
                    log.error(text, exc, extra={"event": "reload_failed"})  # noqa: TRY400
                for worker in self._workers:
                    worker.reloads += 1
                self._order(RELOAD)
            else:
                self._order(SKIP if self._draining.is_set() else DRAIN)

    def _order(self, order: bytes) -> None:
        """Tell every worker, also those that are about to be started."""
        if order == DRAIN:
            self._notifier.stopping()
            self._draining.set()
            self._reloading = False  # nobody is told any more that it is over
        for worker in self._workers:
            with suppress(OSError):  # that worker has ended by itself
                worker.link.send(order)

    async def _lose_patience(self) -> None:
        """Kill what does not end; also a worker that was forked meanwhile."""
        await self._draining.wait()
        await trio.sleep(self._patience_s)
        while True:
            for pid in self.pids:
                text = "worker %d did not end in time; killing it"
                log.error(text, pid, extra={"event": "worker_killed"})
            for worker in self._workers:
                if worker.process is not None:
                    worker.process.kill()
            await trio.sleep(1)


async def beat(link: socket.socket, every_s: float) -> None:
    """Write a byte every `every_s`, until cancelled; nobody there is no error."""
    while True:
        with suppress(OSError):
            link.send(BEAT)
        await trio.sleep(every_s)


def say_ready(link: socket.socket) -> None:
    """Tell the supervisor that clients are served.

    From here on SIGUSR1 makes the interpreter write down where its threads stand, even
    while Python code does not return to the loop.
    """
    faulthandler.register(signal.SIGUSR1, file=link.fileno(), all_threads=True)
    with suppress(OSError):
        link.send(READY)


def say_reloaded(link: socket.socket, count: int) -> None:
    """Tell the supervisor that so many reloads are done."""
    with suppress(OSError):
        link.send(RELOAD_DONE * count)


def say_refused(link: socket.socket, why: str) -> None:
    """Tell the supervisor why this worker cannot serve, nor another in its place."""
    with suppress(OSError):
        link.send(REFUSED + why.encode() + REFUSED)


def refuse_to_start(why: str, status: int) -> NoReturn:
    """End this process before it serves, and say why.

    A worker tells its supervisor, which says it once, where its log is.
    """
    if LINK_VARIABLE in os.environ:
        with socket.socket(fileno=os.dup(int(os.environ[LINK_VARIABLE]))) as link:
            say_refused(link, why)
    else:
        sys.stderr.write(f"{why}\n")
    sys.exit(status)


async def _until_hung(
    link: trio.socket.SocketType, bound_s: float, on_data: Callable[[bytes], None]
) -> None:
    """Return once a worker has said nothing for `bound_s`, or has closed its end."""
    within_s = max(bound_s, _STARTUP_S)
    while True:
        data = b""
        with trio.move_on_after(within_s) as scope, suppress(OSError):
            data = await link.recv(4096)
        if scope.cancelled_caught:
            if trio.current_time() < scope.deadline + 1:
                return
            continue  # this process was stopped as well: listen once more
        if not data:
            await trio.sleep(bound_s)  # it is about to exit, or it hangs there
            return
        within_s = bound_s
        on_data(data)


async def _stack_of(process: trio.Process, link: trio.socket.SocketType) -> str:
    """Ask a hung worker where it stands; "" if it is stopped and cannot say."""
    process.send_signal(signal.SIGUSR1)
    said = b""
    with trio.move_on_after(_STACK_S), suppress(OSError):
        while data := await link.recv(65_536):
            said += data
    return said.decode(errors="replace").strip(".!\n")

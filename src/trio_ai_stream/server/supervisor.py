"""Several worker processes: replaced when they die, drained together at the end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

import trio

log = logging.getLogger("trio_ai_stream.supervisor")

# A worker that dies younger than this has not served anybody.
_YOUNG_S: Final = 5.0
# So many in a row, over all workers, and starting another would help nobody.
_YOUNG_DEATHS: Final = 5
_PAUSE_S: Final = 0.5


class Supervisor:
    """The parent of the workers; it accepts no connection itself."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        descriptors: Sequence[int],
        lifeline_variable: str,
        patience_s: float,
    ) -> None:
        """Take what starts a worker.

        :param descriptors: what each worker inherits, by number.
        :param lifeline_variable: tells a worker its end of the pipe for orders.
        :param patience_s: how long workers may take to drain before they are killed.
        """
        self._command = list(command)
        self._environ = dict(environ)
        self._descriptors = list(descriptors)
        self._lifeline_variable = lifeline_variable
        self._patience_s = patience_s
        self._lifelines: dict[trio.Process, int] = {}
        self._draining = trio.Event()
        self._young_deaths = 0

    @property
    def pids(self) -> list[int]:
        """The workers that live."""
        return [process.pid for process in self._lifelines]

    async def run(self, workers: int, *, drain: bytes, skip: bytes) -> int:
        """Keep so many workers alive until a signal; return the exit code.

        The code is 0 after a drain, 1 if the workers would not stay alive.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals, drain, skip)
                async with trio.open_nursery() as slots:
                    for _ in range(workers):
                        slots.start_soon(self._keep_alive, drain)
                nursery.cancel_scope.cancel(reason="all workers have ended")
        return 1 if self._young_deaths >= _YOUNG_DEATHS else 0

    async def _keep_alive(self, drain: bytes) -> None:
        """Fill one slot with one worker after another until the drain."""
        while not self._draining.is_set():
            began = trio.current_time()
            code = await self._one_worker()
            if self._draining.is_set():
                return
            text = "a worker ended with code %s; starting another"
            log.error(text, code, extra={"event": "worker_ended"})
            if trio.current_time() - began < _YOUNG_S:
                self._young_deaths += 1
                if self._young_deaths >= _YOUNG_DEATHS:
                    text = "workers do not stay alive; giving up"
                    log.critical(text, extra={"event": "workers_given_up"})
                    self._order(drain)
                    return
                with trio.move_on_after(_PAUSE_S):
                    await self._draining.wait()
            else:
                self._young_deaths = 0

    async def _one_worker(self) -> int | None:
        theirs, ours = os.pipe()
        try:
            process = await trio.lowlevel.open_process(
                self._command,
                env={**self._environ, self._lifeline_variable: str(theirs)},
                pass_fds=(*self._descriptors, theirs),
                stdin=subprocess.DEVNULL,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._lifelines[process] = ours
        try:
            return await process.wait()
        finally:
            del self._lifelines[process]
            os.close(ours)

    async def _obey(
        self, signals: AsyncIterator[int], drain: bytes, skip: bytes
    ) -> None:
        """Order the drain at the first signal, its end at the second."""
        await anext(signals)
        self._order(drain)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lose_patience)
            async for _ in signals:
                self._order(skip)

    def _order(self, order: bytes) -> None:
        self._draining.set()
        for lifeline in self._lifelines.values():
            with suppress(BrokenPipeError):  # that worker has ended by itself
                os.write(lifeline, order)

    async def _lose_patience(self) -> None:
        await trio.sleep(self._patience_s)
        for process in self._lifelines:
            text = "worker %d did not end in time; killing it"
            log.error(text, process.pid, extra={"event": "worker_killed"})
            process.kill()

"""What a crowd of clients may do in one turn of the loop: a bounded number reads."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Final

import trio

# Reads that may follow each other so closely, and how closely. What a read sets off is
# some 100 microseconds of work: the end of a stream, or the begin of a request.
AT_MOST: Final = 50
WINDOW_S: Final = 0.005


class Turns:
    """Lets `at_most` readers pass in each `window_s`; the others stand in line.

    Thousands of clients that leave in one moment, as behind a proxy that restarts,
    would else all be read, and their streams ended, in one turn of the loop, for which
    every other stream would wait. Those in line pass in their order, `at_most` in a
    turn. Who is not in a crowd pays for a look at the clock.
    """

    def __init__(self, at_most: int = AT_MOST, window_s: float = WINDOW_S) -> None:
        self._at_most = at_most
        self._window_s = window_s
        self._until = 0.0
        self._left = 0
        self._line: dict[trio.lowlevel.Task, None] = {}
        self._waking = False

    def __len__(self) -> int:
        return len(self._line)

    def crowded(self) -> bool:
        """Count one reader; whether it has to stand in line."""
        now = trio.current_time()
        if now >= self._until:
            self._until = now + self._window_s
            self._left = self._at_most
        self._left -= 1
        return self._left < 0 or bool(self._line)

    async def stand_in_line(self) -> None:
        """Wait for a turn. Cancellation: the place in the line is given up."""
        if not self._waking:
            self._waking = True
            trio.lowlevel.current_trio_token().run_sync_soon(self._wake)
        task = trio.lowlevel.current_task()
        self._line[task] = None
        await trio.lowlevel.wait_task_rescheduled(partial(self._leave, task))

    def _leave(
        self, task: trio.lowlevel.Task, _raise_cancel: object
    ) -> trio.lowlevel.Abort:
        del self._line[task]
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self) -> None:
        """Let the first in line pass; come again in the next turn for the others."""
        for task in list(islice(self._line, self._at_most)):
            del self._line[task]
            trio.lowlevel.reschedule(task)
        self._waking = bool(self._line)
        if self._waking:
            trio.lowlevel.current_trio_token().run_sync_soon(self._wake)

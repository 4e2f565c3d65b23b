"""Who is to be watched, and from when: most streams end before they need a timer.

A stream's watch is a task of its own, in the stream's nursery. It has nothing to do
before the shortest of its times is over, so it is started then, by one task for all
streams; a stream that is over sooner costs an entry instead of a task.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context, copy_context

import trio

Begin = Callable[[], object]


class Roster:
    """Starts what was entered `after_s` seconds ago and has not left; `run` does it.

    `after_s` is the same for all, so those who wait stand in the order of their times.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._due: OrderedDict[Begin, tuple[float, Context]] = OrderedDict()
        self._entered: trio.Event | None = None  # while there is nobody to wait for

    def __len__(self) -> int:
        return len(self._due)

    def enter(self, begin: Begin) -> None:
        """Call `begin`, which must not raise, when its time has come.

        In the caller's context, so that what it starts logs under the caller's request.
        """
        self._due[begin] = (trio.current_time() + self._after_s, copy_context())
        if self._entered is not None:
            self._entered.set()

    def leave(self, begin: Begin) -> None:
        """Do not call `begin` any more; idempotent."""
        self._due.pop(begin, None)

    async def run(self) -> None:
        """Keep the times; runs until cancelled."""
        while True:
            if not self._due:
                self._entered = trio.Event()
                await self._entered.wait()
                self._entered = None
                continue
            due = next(iter(self._due.values()))[0]
            if due > trio.current_time():
                # It may leave meanwhile: a waking that finds nobody due costs less
                # than a new time for each who leaves.
                await trio.sleep_until(due)
                continue
            self._start_first()

    def _start_first(self) -> None:
        """Start one; a frame of its own, so that it is held no longer than that."""
        begin, (_, context) = self._due.popitem(last=False)
        context.run(begin)

"""The timers of a stream: heartbeat towards the client, silence of upstream.

The relay notes when it begins to wait; the timers look at the note when they may be
due. So an event costs one clock reading and no cancel scope, and each timer still fires
at its exact time. One task for all streams looks, and none waits in a stream for its
own timers: a task is four kilobytes. A heartbeat, which may have to wait for its
client, is written by a task in the stream's nursery that ends with the write.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

import trio

from trio_ai_stream.stream.budgets import Budgets
from trio_ai_stream.stream.protocols import Responder

Look = Callable[[], None]
# Entries that have left go when they are more than this, and most of the heap.
_LEFT: Final = 64


@dataclass(slots=True, eq=False)
class StreamTimers:
    """Timers over the relay's waiting, from `begin` to `end`."""

    _budgets: Budgets
    _responder: Responder
    _queue: TimerQueue
    _request_id: str
    _nursery: trio.Nursery | None = None  # between `begin` and `end`
    # While a heartbeat is being written; whoever wants to write waits for it first.
    heartbeat_done: trio.Event | None = None
    waiting_since: float | None = None
    sent_at: float = field(default_factory=trio.current_time)
    # Entered by the relay once content flows: silence before it is the first-token
    # budget's business.
    idle_scope: trio.CancelScope | None = None

    def begin(self, nursery: trio.Nursery) -> None:
        """Act from now on; `nursery` holds the task of a heartbeat."""
        self._nursery = nursery
        first_s = min(self._budgets.heartbeat_s, self._budgets.idle_s)
        self._queue.enter(self.look, trio.current_time() + first_s)

    def end(self) -> None:
        """Act no more; idempotent. A heartbeat under way is its nursery's."""
        self._nursery = None
        self._queue.leave(self.look)

    def look(self) -> None:
        """Begin a heartbeat or end silence, if that is due; else look again later."""
        nursery = self._nursery
        if nursery is None:
            return
        now = trio.current_time()
        idle_s = self._budgets.idle_s
        due = now + min(self._budgets.heartbeat_s, idle_s)
        if self.waiting_since is not None:
            idle_due = self.waiting_since + idle_s
            # Nothing hides an upstream that may be dead.
            alive_until = self.waiting_since + self._budgets.alive_s
            heartbeat_due = self.sent_at + self._budgets.heartbeat_s
            if heartbeat_due > alive_until:
                heartbeat_due = math.inf
            if self.idle_scope is not None and idle_due <= now:
                self.idle_scope.cancel(reason="stream_idle_timeout")
                return
            if heartbeat_due <= now:
                self.heartbeat_done = trio.Event()
                name = f"heartbeat {self._request_id}"
                nursery.start_soon(self._write_heartbeat, name=name)
                return
            due = min(heartbeat_due, due if self.idle_scope is None else idle_due)
            due = min(due, now + idle_s)
        self._queue.enter(self.look, due)

    async def writable(self) -> None:
        """Wait until no heartbeat is being written: there is one writer at a time."""
        if self.heartbeat_done is not None:
            await self.heartbeat_done.wait()

    async def _write_heartbeat(self) -> None:
        done = self.heartbeat_done
        assert done is not None
        try:
            # Also if upstream has said something since it was due: the relay waits for
            # this write, and what came may be nothing that the client is told.
            await self._responder.heartbeat()
            self.sent_at = trio.current_time()
        finally:
            done.set()
            self.heartbeat_done = None
        self.look()


class TimerQueue:
    """Calls what was entered when its time has come, unless it has left; `run` does it.

    An entry in line costs a tenth of a task that sleeps.
    """

    def __init__(self) -> None:
        self._entries: dict[Look, _QueuedLook] = {}
        self._line: list[tuple[float, int, _QueuedLook]] = []  # a heap
        self._numbers = count()
        self._sleep = trio.CancelScope()  # its deadline is the first one's in line

    def __len__(self) -> int:
        return len(self._entries)

    def enter(self, look: Look, due: float) -> None:
        """Call `look`, which must not raise, at `due` on Trio's clock.

        In the caller's context, so that what it starts logs under the caller's request.
        """
        entry = self._entries[look] = _QueuedLook(look)
        heappush(self._line, (due, next(self._numbers), entry))
        if due < self._sleep.deadline:
            self._sleep.deadline = due

    def leave(self, look: Look) -> None:
        """Do not call `look` any more; idempotent."""
        entry = self._entries.pop(look, None)
        if entry is None:
            return
        entry.look = entry.context = None
        self._drop_left()
        if len(self._line) > 2 * len(self._entries) + _LEFT:
            self._line = [place for place in self._line if place[2].look is not None]
            heapify(self._line)

    async def run(self) -> None:
        """Keep the times; runs until cancelled."""
        while True:
            due = self._line[0][0] if self._line else math.inf
            if due > trio.current_time():
                # An entry may leave before; to wake for nothing costs less than a new
                # time for each entry that leaves.
                with trio.CancelScope(deadline=due) as self._sleep:
                    await trio.sleep_forever()
                continue
            self._call_first()
            # Thousands may have begun at once: the others have a turn in between.
            await trio.lowlevel.checkpoint()

    def _call_first(self) -> None:
        """Call one; a frame of its own, so that it is held no longer than that."""
        _, _, entry = heappop(self._line)
        self._drop_left()
        look, context = entry.look, entry.context
        assert look is not None
        assert context is not None
        del self._entries[look]
        context.run(look)

    def _drop_left(self) -> None:
        """Let the first in line be one that has not left: each costs a turn."""
        while self._line and self._line[0][2].look is None:
            heappop(self._line)


class _QueuedLook:
    """What is called, and in which context; None once it has left."""

    __slots__ = ("context", "look")

    def __init__(self, look: Look) -> None:
        self.look: Look | None = look
        self.context: Context | None = copy_context()

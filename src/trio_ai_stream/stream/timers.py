"""The timers of a stream: heartbeat towards the client, silence of upstream.

The relay notes when it begins to wait; the timers' task reads the note when it wakes.
So an event costs one clock reading and no cancel scope, and each timer still fires at
its exact time. Most streams end before any timer is due: the task is started when the
shortest of the times is over, by one task for all streams.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context, copy_context

import trio

from trio_ai_stream.stream.budgets import Budgets
from trio_ai_stream.stream.protocols import Responder

Start = Callable[[], object]


class StreamTimers:
    """Timers over the relay's waiting; `run` is the task."""

    __slots__ = (
        "_budgets",
        "_responder",
        "heartbeat_done",
        "idle_scope",
        "sent_at",
        "waiting_since",
    )

    def __init__(self, budgets: Budgets, responder: Responder) -> None:
        self._budgets = budgets
        self._responder = responder
        # While a heartbeat is being written; whoever wants to write waits for it first.
        self.heartbeat_done: trio.Event | None = None
        self.waiting_since: float | None = None
        self.sent_at = trio.current_time()
        # Entered by the relay once content flows: silence before it is the first-token
        # budget's business.
        self.idle_scope: trio.CancelScope | None = None

    async def run(self) -> None:
        """Write heartbeats and end silence; runs until cancelled."""
        heartbeat_s, idle_s = self._budgets.heartbeat_s, self._budgets.idle_s
        while True:
            now = trio.current_time()
            due = now + min(heartbeat_s, idle_s)
            if self.waiting_since is not None:
                idle_due = self.waiting_since + idle_s
                # Nothing hides an upstream that may be dead.
                alive_until = self.waiting_since + self._budgets.alive_s
                heartbeat_due = self.sent_at + heartbeat_s
                if heartbeat_due > alive_until:
                    heartbeat_due = math.inf
                if self.idle_scope is not None and idle_due <= now:
                    self.idle_scope.cancel(reason="stream_idle_timeout")
                    return
                if heartbeat_due <= now:
                    await self._write_heartbeat()
                    continue
                due = min(heartbeat_due, due if self.idle_scope is None else idle_due)
                due = min(due, now + idle_s)
            await trio.sleep_until(due)

    async def writable(self) -> None:
        """Wait until no heartbeat is being written: there is one writer at a time."""
        if self.heartbeat_done is not None:
            await self.heartbeat_done.wait()

    async def _write_heartbeat(self) -> None:
        self.heartbeat_done = trio.Event()
        try:
            await self._responder.heartbeat()
            self.sent_at = trio.current_time()
        finally:
            self.heartbeat_done.set()
            self.heartbeat_done = None


class TimerQueue:
    """Starts what was entered `after_s` seconds ago and has not left; `run` does it.

    `after_s` is the same for all, so those who wait stand in the order of their times.
    A stream that is over sooner costs an entry instead of a task.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._due: OrderedDict[Start, tuple[float, Context]] = OrderedDict()
        self._entered: trio.Event | None = None  # while there is nobody to wait for

    def __len__(self) -> int:
        return len(self._due)

    def enter(self, start: Start) -> None:
        """Call `start`, which must not raise, when its time has come.

        In the caller's context, so that what it starts logs under the caller's request.
        """
        self._due[start] = (trio.current_time() + self._after_s, copy_context())
        if self._entered is not None:
            self._entered.set()

    def leave(self, start: Start) -> None:
        """Do not call `start` any more; idempotent."""
        self._due.pop(start, None)

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
                # An entry may leave before; to wake for nothing costs less than a new
                # time for each entry that leaves.
                await trio.sleep_until(due)
                continue
            self._start_first()
            # Thousands may have begun at once: the others have a turn in between.
            await trio.lowlevel.checkpoint()

    def _start_first(self) -> None:
        """Start one; a frame of its own, so that it is held no longer than that."""
        start, (_, context) = self._due.popitem(last=False)
        context.run(start)

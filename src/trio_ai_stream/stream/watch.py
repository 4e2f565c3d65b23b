"""The timers of one stream: heartbeat towards the client, silence of upstream.

The relay notes when it begins to wait; this task reads the note when it wakes, so an
event costs one clock reading and no cancel scope, and each timer still fires at its
exact time.
"""

from __future__ import annotations

import trio

from trio_ai_stream.stream.budgets import Budgets
from trio_ai_stream.stream.source import Client


class Watch:
    """Timers over the relay's waiting; `run` is the task."""

    __slots__ = (
        "_beating",
        "_budgets",
        "_client",
        "idle_scope",
        "sent_at",
        "waiting_since",
    )

    def __init__(self, budgets: Budgets, client: Client) -> None:
        self._budgets = budgets
        self._client = client
        self._beating: trio.Event | None = None
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
                beat_due = self.sent_at + heartbeat_s
                if self.idle_scope is not None and idle_due <= now:
                    self.idle_scope.cancel(reason="stream_idle_timeout")
                    return
                if beat_due <= now:
                    await self._beat()
                    continue
                due = min(beat_due, due if self.idle_scope is None else idle_due)
                due = min(due, now + idle_s)
            await trio.sleep_until(due)

    async def writable(self) -> None:
        """Wait until no heartbeat is being written: there is one writer at a time."""
        if self._beating is not None:
            await self._beating.wait()

    async def _beat(self) -> None:
        self._beating = trio.Event()
        try:
            await self._client.heartbeat()
            self.sent_at = trio.current_time()
        finally:
            self._beating.set()
            self._beating = None

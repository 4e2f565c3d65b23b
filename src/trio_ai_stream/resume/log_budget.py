"""What the logs of all resumable streams of a process hold together."""

from __future__ import annotations

import trio


class LogBudget:
    """Counts the bytes of all logs, and wakes who waits for room."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._waiting: set[trio.Event] = set()

    @property
    def full(self) -> bool:
        """Whether there is no room for more."""
        return self.held >= self.limit

    def take(self, size: int) -> None:
        """Count bytes that a log has got."""
        self.held += size

    def give_back(self, size: int) -> None:
        """Count bytes no longer; whoever waits looks again once there is room."""
        was_full = self.full
        self.held -= size
        if was_full and not self.full:
            waiting, self._waiting = self._waiting, set()
            for event in waiting:
                event.set()

    def wake(self, event: trio.Event) -> None:
        """Set `event` once there is room."""
        self._waiting.add(event)

    def forget(self, event: trio.Event) -> None:
        """Set it no more; idempotent."""
        self._waiting.discard(event)

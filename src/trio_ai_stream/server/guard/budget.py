"""How many events of one kind a client may cause in a span of time."""

from __future__ import annotations

import trio


class Budget:
    """A fixed window: `limit` events in `span_s`, then no more until it has passed."""

    __slots__ = ("_limit", "_span_s", "_spent", "_until")

    def __init__(self, limit: int, span_s: float) -> None:
        self._limit = limit
        self._span_s = span_s
        self._spent = 0
        self._until = 0.0

    def spend(self, count: int = 1) -> bool:
        """Count events; False once there have been too many."""
        now = trio.current_time()
        if now >= self._until:
            self._until = now + self._span_s
            self._spent = 0
        self._spent += count
        return self._spent <= self._limit

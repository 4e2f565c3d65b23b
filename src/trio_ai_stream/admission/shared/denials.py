"""Refusals that are known to hold, so that a hammering client costs no round trip.

A refusal says when the next request can be admitted at the earliest. Until then nothing
that any process does can make it earlier: the bucket's debt only grows. So the answer
is kept, and counted from the instant at which the question was sent, which is before
the server's clock was read: no request is refused that the server would have admitted.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from trio_ai_stream.admission.decision import Decision

DEFAULT_CAPACITY = 10_000


class Denials:
    """The last refusals, each until it ends; constant time, bounded memory."""

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._capacity = capacity
        self._until: OrderedDict[str, tuple[float, Decision]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def put(self, client_id: str, asked_at: float, refusal: Decision) -> None:
        """Keep a refusal of a question that was sent at `asked_at`."""
        self._until[client_id] = (asked_at + refusal.retry_after_s, refusal)
        self._until.move_to_end(client_id)
        if len(self._until) > self._capacity:
            self._until.popitem(last=False)

    def get(self, client_id: str, now: float) -> Decision | None:
        """Return the refusal that still holds for the client, with its wait updated."""
        found = self._until.get(client_id)
        if found is None:
            return None
        until, refusal = found
        if until <= now:
            del self._until[client_id]
            return None
        passed = refusal.retry_after_s - (until - now)
        return replace(
            refusal,
            reset_s=max(0.0, refusal.reset_s - passed),
            retry_after_s=until - now,
        )

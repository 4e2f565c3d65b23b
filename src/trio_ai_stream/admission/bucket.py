"""One token bucket for each client, in memory. Pure: the caller passes the time in.

The bucket is kept as one number, the instant at which it will be full again (GCRA, the
generic cell rate algorithm of ITU-T I.371, states the same as a "theoretical arrival
time"). Each admitted request moves that instant by one interval; a request is admitted
if it would not move it further than one burst ahead. A full bucket is the same as none,
so it needs no memory, and no task has to refill anything.

Memory is bounded twice. Each admission also looks at the two clients who were admitted
longest ago and forgets those whose bucket is full again: so the table holds no more
than the clients of about one window. And it never holds more than `capacity` clients.
Past that, somebody must be forgotten, and being forgotten is a gift: a full bucket. The
gift is smallest for the bucket that is fullest, so of the clients admitted longest ago
the one nearest to full goes. A flood of newcomers, who have each used one request, thus
pushes out its own; a client held at its limit, who is admitted as often as the rate
allows, is both recent and empty. One eviction never gives more than one burst.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from trio_ai_stream.admission.decision import Decision, Quota

DEFAULT_CAPACITY = 100_000
"""Clients; about 20 MB of keys and numbers (bench/admission.py measures it)."""

_SWEEP = 2
"""Entries looked at for each one added: the table shrinks whenever it can."""

_SAMPLE = 8
"""Candidates for an eviction; more finds a fuller bucket and costs more."""

_ROUNDING_S = 1e-9
"""Slack for sums of floats; far below any interval, so it never admits one more."""


class BucketTable:
    """The buckets of all clients under one quota; constant time, bounded memory."""

    def __init__(self, quota: Quota, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < _SAMPLE:
            raise ValueError(
                f"expected a capacity of at least {_SAMPLE}, got {capacity}"
            )
        self.quota = quota
        self._capacity = capacity
        # Client to the instant of its full bucket, ordered by the last admission.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def admit(self, client_id: str, now: float) -> Decision:
        """Take one token of `client_id` at `now` (seconds, one clock), or refuse.

        A refusal changes nothing: hammering does not lengthen the wait.
        """
        interval, window = self.quota.interval_s, self.quota.window_s
        full_at = max(self._full_at.get(client_id, now), now)
        next_full_at = full_at + interval
        wait = next_full_at - window - now
        if wait > _ROUNDING_S:
            return Decision(
                allowed=False,
                quota=self.quota,
                remaining=0,
                reset_s=full_at - now,
                retry_after_s=wait,
            )
        if client_id not in self._full_at:
            self._make_room(now)
        self._full_at[client_id] = next_full_at
        self._full_at.move_to_end(client_id)
        reset_s = next_full_at - now
        return Decision(
            allowed=True,
            quota=self.quota,
            remaining=max(0, int((window - reset_s) / interval + 1e-6)),
            reset_s=reset_s,
            retry_after_s=0.0,
        )

    def _make_room(self, now: float) -> None:
        for client_id in list(islice(self._full_at, _SWEEP)):
            if self._full_at[client_id] <= now:
                del self._full_at[client_id]
        if len(self._full_at) >= self._capacity:
            oldest = islice(self._full_at.items(), _SAMPLE)
            fullest, _ = min(oldest, key=lambda item: item[1])
            del self._full_at[fullest]

"""The gate that each request and each stream passes, wherever its counters live.

`LocalGate` counts in this process; `SharedGate` (admission/shared) counts in Valkey or
Redis for all workers and hosts. The application holds a `Gate` and knows no more.

Permits say how many streams may live at a time. A stream without one is refused at
once. Queueing would hold the client's connection, hide the overload from the load
balancer and add a wait to every stream.

The rate limit is one token bucket for each client. A bucket is kept as one number, the
instant at which it will be full again (GCRA, the generic cell rate algorithm of ITU-T
I.371, states the same as a "theoretical arrival time"). Each admitted request moves
that instant by one interval; a request is admitted if it would not move it further than
one burst ahead. A full bucket is the same as none, so it needs no memory, and no task
has to refill anything.

Memory is bounded twice. Each admission also looks at the two clients who were admitted
longest ago and forgets those whose bucket is full again, so the table holds no more
than the clients of about one window. And it never holds more than `capacity` clients.
Past that it forgets, of the clients admitted longest ago, the one whose bucket is
nearest to full: who then gets a full one gains least. A flood of newcomers, who have
each used one request, thus pushes out its own; a client held at its limit is recent and
its bucket is empty, so it stays.

What is said of a request is sent in header fields of two generations, because clients
read either: `RateLimit-Limit`, `-Remaining`, `-Reset`
(draft-ietf-httpapi-ratelimit-headers-05 and what most APIs send) and
`RateLimit-Policy`, `RateLimit` (draft -10, structured fields: q quota, w window in
seconds, r remaining, t seconds until it is restored). `Retry-After` (RFC 9110, section
10.2.3) comes with a refusal only, and the reset then names the same instant, so that
the fields never contradict each other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import trio

POLICY = "requests"
"""The policy's name in the structured fields."""
FIELDS = (
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "RateLimit-Policy",
    "RateLimit",
    "Retry-After",
)
"""The names of all fields; a page of another origin must be let read them."""


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests a second and client, of which `burst` may come at once."""

    rate: float
    burst: int

    @classmethod
    def per_second(cls, rate: float) -> Quota:
        """Return RATE_LIMIT's quota: the burst is one second's worth, at least one."""
        return cls(rate=rate, burst=max(1, math.floor(rate)))

    @property
    def interval_s(self) -> float:
        """Seconds in which one request's worth comes back."""
        return 1.0 / self.rate

    @property
    def window_s(self) -> float:
        """Seconds in which a whole burst comes back."""
        return self.burst / self.rate


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether one request may go on, and what the client has left.

    `remaining` requests may follow at once; the whole burst is back in `reset_s`;
    `retry_after_s` is 0 for an admitted request, else the time until one is admitted.
    `unavailable` says that it was refused for want of an answer, not for its rate: the
    shared counters can't be reached and RATE_LIMIT_FALLBACK is `closed` (503, not 429).
    By this process's own count it may go on, if it can begin no stream.
    """

    allowed: bool
    quota: Quota
    remaining: int
    reset_s: float
    retry_after_s: float
    unavailable: bool = False

    def headers(self) -> list[tuple[str, str]]:
        """Return the response's fields, `Retry-After` among them if it is refused."""
        reset = whole_seconds(self.reset_s if self.allowed else self.retry_after_s)
        window = whole_seconds(self.quota.window_s)
        values = [
            str(self.quota.burst),
            str(self.remaining),
            str(reset),
            f'"{POLICY}";q={self.quota.burst};w={window}',
            f'"{POLICY}";r={self.remaining};t={reset}',
        ]
        if not self.allowed:
            values.append(str(reset))
        return list(zip(FIELDS, values, strict=False))


def whole_seconds(seconds: float) -> int:
    """Round up to whole seconds, at least 1: sooner would only be refused again."""
    # A rounding error above a whole number must not cost the client another second.
    return max(1, math.ceil(seconds - 1e-6))


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
        self.quota = quota
        self._capacity = capacity
        # Client to the instant of its full bucket, ordered by the last admission.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def admit(self, client_id: str, now: float, quota: Quota | None = None) -> Decision:
        """Take one token of `client_id` at `now` (seconds, one clock), or refuse.

        `quota` stands for that of the table. A refusal changes nothing: hammering does
        not lengthen the wait.
        """
        quota = quota or self.quota
        interval, window = quota.interval_s, quota.window_s
        full_at = max(self._full_at.get(client_id, now), now)
        next_full_at = full_at + interval
        wait = next_full_at - window - now
        if wait > _ROUNDING_S:
            return Decision(
                allowed=False,
                quota=quota,
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
            quota=quota,
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


Scope = Literal["server", "client", "gate"]
Policy = Literal["local", "open", "closed"]
"""RATE_LIMIT_FALLBACK: what holds while the shared counters can't be reached."""

RETRY_AFTER_S = 1.0
"""Nobody knows when a stream ends, or Valkey is back."""


@dataclass(frozen=True, slots=True)
class PermitRefusal:
    """No permit: the server (503) or this client (429) has as many as it may have.

    `gate`: the shared counters can't be reached and the policy is `closed` (503).
    """

    scope: Scope
    limit: int
    retry_after_s: float = RETRY_AFTER_S


class Permit:
    """The right to one live stream, until `release`."""

    __slots__ = ("_on_release", "client_id", "request_id")

    def __init__(
        self, client_id: str, request_id: str, on_release: Callable[[Permit], None]
    ) -> None:
        self.client_id = client_id
        self.request_id = request_id
        self._on_release: Callable[[Permit], None] | None = on_release

    def release(self) -> None:
        """Give the permit back; synchronous, and idempotent however often it is called.

        The first call takes effect; so a clean-up path need not know of another's.
        """
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            on_release(self)


class StreamPermits:
    """`total` permits, of which one client holds `per_client` at most (None: any).

    So many are `held` now.
    """

    def __init__(self, total: int, per_client: int | None = None) -> None:
        self.total = total
        self.per_client = per_client
        self._held_by: Counter[str] = Counter()
        self.held = 0

    def acquire_nowait(
        self,
        client_id: str,
        request_id: str,
        *,
        share: int | None = None,
        per_client: int | None = None,
    ) -> Permit | PermitRefusal:
        """Return a permit, or why there is none; never waits.

        `share` stands for the total while several processes must keep to it blindly,
        `per_client` for what any client may hold.
        """
        total = self.total if share is None else share
        if self.held >= total:
            return PermitRefusal("server", total)
        own = self.per_client if per_client is None else per_client
        if own is not None and self._held_by[client_id] >= own:
            return PermitRefusal("client", own)
        return self.acquire_unchecked(client_id, request_id)

    def acquire_unchecked(self, client_id: str, request_id: str) -> Permit:
        """Return a permit that somebody else has already granted; only count it."""
        self._held_by[client_id] += 1
        self.held += 1
        return Permit(client_id, request_id, self._release)

    def set_limits(self, total: int, per_client: int | None) -> None:
        """Let so many be held from now on; more that are held already stay granted."""
        self.total = total
        self.per_client = per_client

    def _release(self, permit: Permit) -> None:
        self.held -= 1
        self._held_by[permit.client_id] -= 1
        if not self._held_by[permit.client_id]:
            del self._held_by[permit.client_id]


class ClusterRefusedError(RuntimeError):
    """REDIS_URL names a node of a cluster, which this server does not use."""

    def __init__(self) -> None:
        super().__init__(
            "REDIS_URL: expected one server, got a node of a cluster; use a server"
            " without cluster mode, or an endpoint that looks like one"
        )


@dataclass(frozen=True, slots=True)
class GateStatus:
    """Where limits are counted now, for `/ready` and the metrics.

    `shared` counts in Valkey; `fallback` means that Valkey should be counting but can't
    be reached, so the policy of RATE_LIMIT_FALLBACK holds; `local` has no Valkey. So
    many permits are `held` by this process.
    """

    mode: Literal["local", "shared", "fallback"]
    policy: Policy | None
    held: int


class Gate(ABC):
    """Decides on requests and streams; one for each process."""

    @abstractmethod
    async def admit_request(
        self, client_id: str, quota: Quota | None = None
    ) -> Decision:
        """Take one request of the client's rate, or refuse; `quota` is its own."""

    @abstractmethod
    async def acquire_stream(
        self, client_id: str, request_id: str, per_client: int | None = None
    ) -> Permit | PermitRefusal:
        """Return the permit for one stream, or why there is none; never queues.

        `per_client` is the client's own limit.
        """

    @abstractmethod
    def status(self) -> GateStatus:
        """Return where limits are counted now."""

    @abstractmethod
    def set_limits(self, quota: Quota, total: int, per_client: int | None) -> None:
        """Decide by these limits from now on; what is granted stays so."""

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Do the gate's background work until cancelled, if it has any.

        Start it with `nursery.start`: the gate may be used once that returns.

        :raises ClusterRefusedError: inside a group; the server must not start.
        """
        task_status.started()

    async def leave(self) -> None:  # noqa: B027  a gate that shares nothing need not
        """End the lease at shutdown, after the last stream, before `run` is cancelled.

        Takes no longer than one timeout. Without it others wait for the lease to end.
        """


class LocalGate(Gate):
    """Counts in this process's memory: nothing is shared, nothing can fail.

    Its methods are async because the others' are; they neither wait nor give other
    tasks a turn, so a decision costs microseconds and no scheduler pass.
    """

    def __init__(self, quota: Quota, permits: StreamPermits) -> None:
        self._buckets = BucketTable(quota)
        self._permits = permits

    async def admit_request(
        self, client_id: str, quota: Quota | None = None
    ) -> Decision:
        """Take one request of the client's rate, or refuse."""
        return self._buckets.admit(client_id, trio.current_time(), quota)

    async def acquire_stream(
        self, client_id: str, request_id: str, per_client: int | None = None
    ) -> Permit | PermitRefusal:
        """Return the permit for one stream, or why there is none."""
        return self._permits.acquire_nowait(
            client_id, request_id, per_client=per_client
        )

    def status(self) -> GateStatus:
        """Return the local counts."""
        return GateStatus("local", None, self._permits.held)

    def set_limits(self, quota: Quota, total: int, per_client: int | None) -> None:
        """Decide by these limits from now on."""
        self._buckets.quota = quota
        self._permits.set_limits(total, per_client)

"""The gate that each request and each stream passes, wherever its counters live.

`LocalGate` counts in this process; `SharedGate` (admission/shared) counts in Valkey or
Redis for all workers and hosts. The application holds a `Gate` and knows no more.

Permits say how many streams may live at a time. A stream without one is refused at
once. Queueing would hold the client's connection, hide the overload from the load
balancer and add a wait to every stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import trio

from trio_ai_stream.admission.rate_limit import BucketTable, Decision, Quota

Scope = Literal["server", "client", "gate"]


@dataclass(frozen=True, slots=True)
class PermitRefusal:
    """No permit: the server (503) or this client (429) has as many as it may have.

    `gate`: the shared counters can't be reached and the policy is `closed` (503).
    """

    scope: Scope
    limit: int
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class PermitStatistics:
    """A moment's count of one process; `peak` and `refused` since its start."""

    held: int
    limit: int
    peak: int
    granted: int
    refused: int


class Permit:
    """The right to one live stream, until `release`.

    Also a context manager, for a holder whose stream is one block.
    """

    __slots__ = ("_on_release", "client_id", "request_id")

    def __init__(
        self, client_id: str, request_id: str, on_release: Callable[[Permit], None]
    ) -> None:
        self.client_id = client_id
        self.request_id = request_id
        self._on_release: Callable[[Permit], None] | None = on_release

    @property
    def released(self) -> bool:
        """Whether `release` was called."""
        return self._on_release is None

    def release(self) -> None:
        """Give the permit back; synchronous, and idempotent however often it is called.

        The first call takes effect; so a clean-up path need not know of another's.
        """
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            on_release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "released" if self.released else "held"
        return f"<Permit {self.request_id} of {self.client_id}, {state}>"


class StreamPermits:
    """`total` permits, of which one client holds `per_client` at most (None: any)."""

    def __init__(
        self, total: int, per_client: int | None = None, *, retry_after_s: float = 1.0
    ) -> None:
        if total < 1 or (per_client is not None and per_client < 1):
            raise ValueError(f"expected limits of 1 or more, got {total}, {per_client}")
        self.total = total
        self.per_client = per_client
        self._retry_after_s = retry_after_s
        self._held: Counter[str] = Counter()
        self._count = self._peak = self._granted = self._refused = 0

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
        if self._count >= total:
            return self.refuse("server", total)
        own = self.per_client if per_client is None else per_client
        if own is not None and self._held[client_id] >= own:
            return self.refuse("client", own)
        return self.acquire_unchecked(client_id, request_id)

    def acquire_unchecked(self, client_id: str, request_id: str) -> Permit:
        """Return a permit that somebody else has already granted; only count it."""
        self._held[client_id] += 1
        self._count += 1
        self._granted += 1
        self._peak = max(self._peak, self._count)
        return Permit(client_id, request_id, self._release)

    def set_limits(self, total: int, per_client: int | None) -> None:
        """Let so many be held from now on; more that are held already stay granted."""
        self.total = total
        self.per_client = per_client

    def statistics(self) -> PermitStatistics:
        """Return the counts of this moment."""
        return PermitStatistics(
            held=self._count,
            limit=self.total,
            peak=self._peak,
            granted=self._granted,
            refused=self._refused,
        )

    def refuse(self, scope: Scope, limit: int) -> PermitRefusal:
        """Count a refusal, whoever decided it, and return it."""
        self._refused += 1
        return PermitRefusal(scope, limit, self._retry_after_s)

    def _release(self, permit: Permit) -> None:
        self._count -= 1
        self._held[permit.client_id] -= 1
        if not self._held[permit.client_id]:
            del self._held[permit.client_id]


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
    be reached, so the policy of RATE_LIMIT_FALLBACK holds; `local` has no Valkey.
    """

    mode: Literal["local", "shared", "fallback"]
    policy: Literal["local", "open", "closed"] | None
    permits: PermitStatistics


class Gate(Protocol):
    """Decides on requests and streams; one for each process."""

    async def admit_request(
        self, client_id: str, quota: Quota | None = None
    ) -> Decision:
        """Take one request of the client's rate, or refuse; `quota` is its own."""
        ...

    async def acquire_stream(
        self, client_id: str, request_id: str, per_client: int | None = None
    ) -> Permit | PermitRefusal:
        """Return the permit for one stream, or why there is none; never queues.

        `per_client` is the client's own limit.
        """
        ...

    def status(self) -> GateStatus:
        """Return where limits are counted now."""
        ...

    def set_limits(self, quota: Quota, total: int, per_client: int | None) -> None:
        """Decide by these limits from now on; what is granted stays so."""
        ...

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Do the gate's background work until cancelled, if it has any.

        Start it with `nursery.start`: the gate may be used once that returns.

        :raises ClusterRefusedError: inside a group; the server must not start.
        """
        ...

    async def leave(self) -> None:
        """End the lease at shutdown, after the last stream, before `run` is cancelled.

        Takes no longer than one timeout. Without it others wait for the lease to end.
        """
        ...


class LocalGate:
    """Counts in this process's memory: nothing is shared, nothing can fail.

    Its methods are async because the protocol's are; they neither wait nor give other
    tasks a turn, so a decision costs microseconds and no scheduler pass.
    """

    def __init__(
        self,
        quota: Quota,
        permits: StreamPermits,
        *,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._buckets = BucketTable(quota)
        self._permits = permits
        self._clock = clock

    async def admit_request(
        self, client_id: str, quota: Quota | None = None
    ) -> Decision:
        """Take one request of the client's rate, or refuse."""
        return self._buckets.admit(client_id, self._clock(), quota)

    async def acquire_stream(
        self, client_id: str, request_id: str, per_client: int | None = None
    ) -> Permit | PermitRefusal:
        """Return the permit for one stream, or why there is none."""
        return self._permits.acquire_nowait(
            client_id, request_id, per_client=per_client
        )

    def status(self) -> GateStatus:
        """Return the local counts."""
        return GateStatus("local", None, self._permits.statistics())

    def set_limits(self, quota: Quota, total: int, per_client: int | None) -> None:
        """Decide by these limits from now on."""
        self._buckets.quota = quota
        self._permits.set_limits(total, per_client)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Return at once: there is no background work."""
        task_status.started()

    async def leave(self) -> None:
        """Do nothing: there is nobody to tell."""

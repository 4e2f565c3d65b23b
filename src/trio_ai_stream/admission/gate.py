"""The gate that each request and each stream passes, wherever its counters live.

`LocalGate` counts in this process; `SharedGate` (admission/shared) counts in Valkey or
Redis for all workers and hosts. The application holds a `Gate` and knows no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import trio

from trio_ai_stream.admission.bucket import BucketTable
from trio_ai_stream.admission.decision import Decision, Quota
from trio_ai_stream.admission.permits import (
    Permit,
    PermitStatistics,
    Refused,
    StreamPermits,
)


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

    async def admit_request(self, client_id: str) -> Decision:
        """Take one request of the client's rate, or refuse."""
        ...

    async def acquire_stream(self, client_id: str, request_id: str) -> Permit | Refused:
        """Return the permit for one stream, or why there is none; never queues."""
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
        """Say goodbye at shutdown, after the last stream and before `run` is cancelled.

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

    async def admit_request(self, client_id: str) -> Decision:
        """Take one request of the client's rate, or refuse."""
        return self._buckets.admit(client_id, self._clock())

    async def acquire_stream(self, client_id: str, request_id: str) -> Permit | Refused:
        """Return the permit for one stream, or why there is none."""
        return self._permits.acquire_nowait(client_id, request_id)

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

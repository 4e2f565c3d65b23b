"""The gate whose counters are in Valkey, for all workers and hosts together.

Each decision is one script, so one round trip, and waits for it no longer than
REDIS_TIMEOUT_SECS. Without an answer RATE_LIMIT_FALLBACK decides:

- `local`: this process counts alone. Requests: each client has its rate here. Streams:
  this process keeps to its share of the limit, by the number of processes that the last
  heartbeat saw.
- `open`: everything is admitted. `closed`: everything is refused with 503.

How far the limits can be exceeded, with N processes:

- Normally not at all: one script decides after the other, on one clock.
- Out of reach of Valkey (`local`), a client may have its rate at each of the N
  processes. Streams: those that were alive stay alive, and each process admits while it
  holds less than its share, so together at most twice the limit plus N, falling to the
  limit plus N as the older streams end.
- A process that is cut off for longer than the lease gives its permits back without
  knowing, and its streams go on: the limit is exceeded by those, and by its share.
- When Valkey comes back with nothing (a restart without persistence), buckets are full,
  which is one burst for each client; permits are put in again by each process's first
  heartbeat, before it asks for new ones.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Literal

import trio

from trio_ai_stream.admission.bucket import BucketTable
from trio_ai_stream.admission.decision import Decision, Quota
from trio_ai_stream.admission.gate import GateStatus
from trio_ai_stream.admission.permits import Permit, Refused, StreamPermits
from trio_ai_stream.admission.shared.changes import Changes
from trio_ai_stream.admission.shared.denials import Denials
from trio_ai_stream.admission.shared.leases import Lease, Leases
from trio_ai_stream.admission.shared.link import Link, Work
from trio_ai_stream.admission.shared.outage import Unavailable
from trio_ai_stream.admission.shared.scripts import ADMIT, Keys
from trio_ai_stream.telemetry.metrics import Metrics

Policy = Literal["local", "open", "closed"]

CLOSED_RETRY_AFTER_S = 1.0


class SharedGate:
    """Counts in Valkey; the same protocol as `LocalGate`."""

    def __init__(
        self,
        url: str,
        quota: Quota,
        permits: StreamPermits,
        metrics: Metrics,
        *,
        prefix: str = "trio-ai-stream",
        policy: Policy = "local",
        timeout_s: float = 0.25,
        lease_s: float = 15.0,
    ) -> None:
        self._permits = permits
        self._metrics = metrics
        self._policy: Policy = policy
        self._alone = BucketTable(quota)
        self._set_quota(quota)
        self._denials = Denials()
        self._changes = Changes(policy)
        self.keys = Keys(prefix, secrets.token_hex(6))
        self.link = Link(url, timeout_s=timeout_s, on_change=self._link_changed)
        self.leases = Leases(self.link, self.keys, lease_s=lease_s)
        self._work: list[Work] = [self.leases.run]

    def _set_quota(self, quota: Quota) -> None:
        self._quota = self._alone.quota = quota
        self._rate = [math.ceil(quota.interval_s * 1e6), quota.burst]

    def set_limits(self, quota: Quota, total: int, per_client: int | None) -> None:
        """Decide by these limits from now on; every process must be told its own."""
        self._set_quota(quota)
        self._permits.set_limits(total, per_client)

    def add_work(self, work: Sequence[Work]) -> None:
        """Have more background work run on the connection; before `run`."""
        self._work += work

    async def admit_request(self, client_id: str) -> Decision:
        """Take one request of the client's rate, or refuse; waits one timeout."""
        asked_at = trio.current_time()
        known = self._denials.get(client_id, asked_at)
        if known is not None:
            return known
        try:
            reply = await self.link.call(ADMIT, [self.keys.rate(client_id)], self._rate)
        except Unavailable as exc:
            self._metrics.gate_failed(exc.cause)
            return self._admit_alone(client_id)
        self._metrics.gate_decided(trio.current_time() - asked_at)
        allowed, remaining, reset_us, wait_us = reply
        decision = Decision(
            allowed=bool(allowed),
            quota=self._quota,
            remaining=remaining,
            reset_s=reset_us / 1e6,
            retry_after_s=wait_us / 1e6,
        )
        if not allowed:
            self._denials.put(client_id, asked_at, decision)
        return decision

    async def acquire_stream(self, client_id: str, request_id: str) -> Permit | Refused:
        """Return the permit for one stream, or why there is none; never queues.

        Cancellation: a permit that Valkey has granted by then is given back.
        """
        lease = Lease(client_id, request_id)
        asked_at = trio.current_time()
        per_client = self._permits.per_client
        try:
            verdict = await self.leases.acquire(
                lease, self._permits.total, per_client or 0
            )
        except Unavailable as exc:
            self._metrics.gate_failed(exc.cause)
            return self._acquire_alone(lease)
        self._metrics.gate_decided(trio.current_time() - asked_at)
        if verdict == "server":
            return self._permits.refuse("server", self._permits.total)
        if verdict == "client":
            return self._permits.refuse("client", per_client or 0)
        inner = self._permits.acquire_unchecked(client_id, request_id)
        return self._permit(lease, inner)

    def status(self) -> GateStatus:
        """Return whether the shared counters are in reach, and the local ones."""
        mode: Literal["shared", "fallback"] = "shared" if self.link.up else "fallback"
        return GateStatus(mode, self._policy, self._permits.statistics())

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the link and the leases until cancelled.

        Started once the first attempt to reach Valkey has succeeded or failed; a server
        without its Valkey starts, falls back, and says so.

        :raises ClusterRefusedError: it is a node of a cluster; inside a group.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._changes.run)
            await nursery.start(self.link.run, self._work)
            task_status.started()

    async def leave(self) -> None:
        """End this process's lease, so that nobody waits for a server that has gone."""
        await self.leases.leave()

    def _admit_alone(self, client_id: str) -> Decision:
        if self._policy == "local":
            return self._alone.admit(client_id, trio.current_time())
        admitted = self._policy == "open"
        return Decision(
            allowed=admitted,
            quota=self._quota,
            remaining=self._quota.burst if admitted else 0,
            reset_s=0.0,
            retry_after_s=0.0 if admitted else CLOSED_RETRY_AFTER_S,
            unavailable=not admitted,
        )

    def _acquire_alone(self, lease: Lease) -> Permit | Refused:
        if self._policy == "closed":
            return self._permits.refuse("gate", 0)
        share = None
        if self._policy == "local":
            share = math.ceil(self._permits.total / max(1, self.leases.fleet.processes))
            granted = self._permits.acquire_nowait(
                lease.client_id, lease.request_id, share=share
            )
        else:
            granted = self._permits.acquire_unchecked(lease.client_id, lease.request_id)
        if isinstance(granted, Refused):
            return granted
        self.leases.adopt(lease)
        return self._permit(lease, granted)

    def _permit(self, lease: Lease, inner: Permit) -> Permit:
        """Return the permit that gives back both: the local count and the lease."""

        def release(_permit: Permit) -> None:
            inner.release()
            self.leases.release(lease)

        return Permit(lease.client_id, lease.request_id, release)

    def _link_changed(self, reason: Unavailable | None) -> None:
        self._metrics.gate_fallback(active=reason is not None)
        if reason is not None:
            self._metrics.redis_lost()
        self._changes.changed(reason, self.leases.fleet.processes)

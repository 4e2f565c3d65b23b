"""The gate whose counters are in Valkey, for all workers and hosts together.

Each decision is one script, so one round trip, and waits for it no longer than
REDIS_TIMEOUT_SECS. Without an answer RATE_LIMIT_FALLBACK decides:

- `local`: this process counts alone. Requests: each client has its rate here. Streams:
  this process keeps to its share of the limit, by the number of processes that the last
  heartbeat saw.
- `open`: everything is admitted. `closed`: all that may begin a stream is refused with
  503; what is about one that lives is counted alone, so that nobody is kept from it.

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
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

import trio
from loguru import logger

from trio_ai_stream.admission.directory import name_process
from trio_ai_stream.admission.gate import (
    RETRY_AFTER_S,
    BucketTable,
    Decision,
    Gate,
    GateStatus,
    Permit,
    PermitRefusal,
    Policy,
    Quota,
    StreamPermits,
)
from trio_ai_stream.admission.shared.leases import Lease, Leases
from trio_ai_stream.admission.shared.valkey_link import (
    Unavailable,
    ValkeyLink,
    Work,
    refuse_cluster,
)
from trio_ai_stream.admission.shared.valkey_scripts import ADMIT, Keys
from trio_ai_stream.telemetry.metrics import Metrics

PERIOD_S: Final = 60.0
"""A link that is lost too often in this time is logged as one that flaps."""
MOST: Final = 3
"""Losses within one period that are logged one by one."""
LONG_S: Final = 5.0
"""A link that has been down for so long was not lost by a restart."""


class Changes:
    """Logs that the shared limits were lost and are back.

    After `MOST` losses within a period there is one `gate_flapping` record a period,
    with the number of losses, until a period passes without one. What keeps the link
    down may be another reason than that of its loss: if it is down for long, so many
    more are logged.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._losses: deque[float] = deque()
        self._reason: Unavailable | None = None
        self._lost_at = 0.0
        self._told: set[str] = set()
        self._processes = 1
        self._flapping = trio.Event()

    def changed(self, reason: Unavailable | None, processes: int) -> bool:
        """Log that the link was lost, for a reason, or is up, if it does not flap.

        Return whether this is a loss, not another attempt that failed.
        """
        was_up = self._reason is None
        self._reason, self._processes = reason, processes
        if reason is not None and not was_up:
            self._log_reason(str(reason))
            return False
        if reason is not None:
            self._lost_at = trio.current_time()
            self._losses.append(self._lost_at)
            self._told = {str(reason)}
        if not self._flapping.is_set():
            self._forget_old()
            if len(self._losses) > MOST:
                self._log_flapping()
                self._flapping.set()
            else:
                self._log_state()
        return reason is not None

    async def run(self) -> None:
        """Log once a period while the link flaps, until cancelled."""
        while True:
            await self._flapping.wait()
            while self._losses:
                self._losses.clear()
                await trio.sleep(PERIOD_S)
                if self._losses:
                    self._log_flapping()
            self._flapping = trio.Event()
            self._log_state()

    def _forget_old(self) -> None:
        oldest = trio.current_time() - PERIOD_S
        while self._losses and self._losses[0] < oldest:
            self._losses.popleft()

    def _log_reason(self, reason: str) -> None:
        """Log why the link still is down, if that is new and it has been for long."""
        for_long = trio.current_time() - self._lost_at >= LONG_S
        new = reason not in self._told and len(self._told) <= MOST
        if for_long and new and not self._flapping.is_set():
            self._told.add(reason)
            self._log_state()

    def _log_state(self) -> None:
        if self._reason is None:
            logger.info(
                "limits are shared", event="gate_shared", processes=self._processes
            )
        else:
            logger.warning(
                "shared limits are out of reach; falling back",
                event="gate_fallback",
                policy=self._policy,
                cause=str(self._reason),
            )

    def _log_flapping(self) -> None:
        logger.warning(
            "shared limits come and go",
            event="gate_flapping",
            policy=self._policy,
            losses=len(self._losses),
            cause=None if self._reason is None else str(self._reason),
        )


DENIALS: Final = 10_000


class Denials:
    """Refusals that still hold, so that asking again costs no round trip.

    A refusal says when the next request can be admitted at the earliest, and nothing
    that any process does can make that earlier. So it is kept until then, counted from
    the instant at which the question was sent. That is before the server's clock was
    read, so no request is refused that the server would have admitted. Constant time,
    bounded memory.
    """

    def __init__(self) -> None:
        self._until: OrderedDict[str, tuple[float, Decision]] = OrderedDict()

    def put(self, client_id: str, asked_at: float, refusal: Decision) -> None:
        """Keep a refusal of a question that was sent at `asked_at`."""
        self._until[client_id] = (asked_at + refusal.retry_after_s, refusal)
        self._until.move_to_end(client_id)
        if len(self._until) > DENIALS:
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


class SharedGate(Gate):
    """Counts in Valkey."""

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
        self._policy = policy
        self._alone = BucketTable(quota)
        self._set_quota(quota)
        self._denials = Denials()
        self._changes = Changes(policy)
        self.keys = Keys(prefix, name_process())
        self.link = ValkeyLink(url, timeout_s=timeout_s, on_change=self._link_changed)
        self.lease_s = lease_s
        self.leases = Leases(self.link, self.keys, lease_s=lease_s)
        self._work: list[Work] = [refuse_cluster]

    def _set_quota(self, quota: Quota) -> None:
        self._quota = self._alone.quota = quota

    def set_limits(self, quota: Quota, total: int, per_client: int | None) -> None:
        """Decide by these limits from now on; every process must be told its own."""
        self._set_quota(quota)
        self._denials = Denials()  # the old rate's
        self._permits.set_limits(total, per_client)

    def add_work(self, work: Sequence[Work]) -> None:
        """Have more background work run on the link; before `run`."""
        self._work += work

    async def admit_request(
        self, client_id: str, quota: Quota | None = None
    ) -> Decision:
        """Take one request of the client's rate, or refuse; waits one timeout."""
        quota = quota or self._quota
        asked_at = trio.current_time()
        denials = self._denials
        known = denials.get(client_id, asked_at)
        if known is not None:
            return known
        try:
            rate = [math.ceil(quota.interval_s * 1e6), quota.burst]
            reply = await self.link.call(ADMIT, [self.keys.rate(client_id)], rate)
        except Unavailable as exc:
            self._metrics.gate_failed(exc.cause)
            return self._admit_alone(client_id, quota)
        self._metrics.gate_decided(trio.current_time() - asked_at)
        allowed, remaining, reset_us, wait_us = reply
        decision = Decision(
            allowed=bool(allowed),
            quota=quota,
            remaining=remaining,
            reset_s=reset_us / 1e6,
            retry_after_s=wait_us / 1e6,
        )
        if not allowed:
            denials.put(client_id, asked_at, decision)
        return decision

    async def acquire_stream(
        self, client_id: str, request_id: str, per_client: int | None = None
    ) -> Permit | PermitRefusal:
        """Return the permit for one stream, or why there is none; never queues.

        Cancellation: a permit that Valkey has granted by then is given back.
        """
        lease = Lease(client_id, request_id)
        asked_at = trio.current_time()
        per_client = per_client or self._permits.per_client
        try:
            verdict = await self.leases.acquire(
                lease, self._permits.total, per_client or 0
            )
        except Unavailable as exc:
            self._metrics.gate_failed(exc.cause)
            return self._acquire_alone(lease, per_client)
        self._metrics.gate_decided(trio.current_time() - asked_at)
        if verdict == "server":
            return PermitRefusal("server", self._permits.total)
        if verdict == "client":
            return PermitRefusal("client", per_client or 0)
        inner = self._permits.acquire_unchecked(client_id, request_id)
        return self._permit(lease, inner)

    def status(self) -> GateStatus:
        """Return whether the shared counters are in reach, and the local ones."""
        mode: Literal["shared", "fallback"] = "shared" if self.link.up else "fallback"
        return GateStatus(mode, self._policy, self._permits.held)

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
            # The leases last: a subscription keeps its connection to itself, and only
            # what asks after it proves that there is another one for the decisions.
            await nursery.start(self.link.run, [*self._work, self.leases.run])
            task_status.started()

    async def leave(self) -> None:
        """End this process's lease, so that nobody waits for a server that has gone."""
        await self.leases.leave()

    def _admit_alone(self, client_id: str, quota: Quota) -> Decision:
        if self._policy == "open":
            return Decision(
                allowed=True,
                quota=quota,
                remaining=quota.burst,
                reset_s=0.0,
                retry_after_s=0.0,
            )
        alone = self._alone.admit(client_id, trio.current_time(), quota)
        if self._policy == "local" or not alone.allowed:
            return alone
        return replace(
            alone, allowed=False, unavailable=True, retry_after_s=RETRY_AFTER_S
        )

    def _acquire_alone(
        self, lease: Lease, per_client: int | None
    ) -> Permit | PermitRefusal:
        if self._policy == "closed":
            return PermitRefusal("gate", 0)
        share = None
        if self._policy == "local":
            share = math.ceil(self._permits.total / max(1, self.leases.processes))
            granted = self._permits.acquire_nowait(
                lease.client_id,
                lease.request_id,
                share=share,
                per_client=per_client,
            )
        else:
            granted = self._permits.acquire_unchecked(lease.client_id, lease.request_id)
        if isinstance(granted, PermitRefusal):
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
        if self._changes.changed(reason, self.leases.processes):
            self._metrics.redis_lost()

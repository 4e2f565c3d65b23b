"""Opens the gate and the directory that a deployment has: alone, one host, or many.

Only here is it decided which; `shared` is imported only where it is used, because its
client takes most of a second to import and is an extra.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import trio

from trio_ai_stream.admission.decision import Quota
from trio_ai_stream.admission.directory import (
    LocalDirectory,
    LocalStreams,
    StreamDirectory,
)
from trio_ai_stream.admission.gate import Gate, LocalGate
from trio_ai_stream.admission.peers import PeerDirectory
from trio_ai_stream.admission.permits import StreamPermits
from trio_ai_stream.telemetry.metrics import Metrics


class MissingExtraError(RuntimeError):
    """REDIS_URL is set, but what speaks to Redis is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "REDIS_URL: expected the extra `redis` to be installed, got none;"
            " install trio-ai-stream[redis], or unset REDIS_URL"
        )


@dataclass(frozen=True, slots=True)
class Sharing:
    """How to reach Valkey or Redis, and what to do without it; times in seconds.

    The URL may hold a password; it is in no `repr` and no log.
    """

    url: str
    prefix: str = "trio-ai-stream"
    policy: Literal["local", "open", "closed"] = "local"
    timeout_s: float = 0.25
    lease_s: float = 15.0

    def __repr__(self) -> str:
        return f"<Sharing prefix={self.prefix} policy={self.policy}>"


@dataclass(frozen=True, slots=True)
class Admission:
    """One process's gate and directory, and the background work of both."""

    gate: Gate
    directory: StreamDirectory
    _work: tuple[Callable[..., Awaitable[Any]], ...]

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Work until cancelled; started once both may be used."""
        async with trio.open_nursery() as nursery:
            for part in self._work:
                await nursery.start(part)
            task_status.started()


def open_admission(
    quota: Quota,
    permits: StreamPermits,
    streams: LocalStreams,
    metrics: Metrics,
    *,
    sharing: Sharing | None = None,
    run_folder: Path | None = None,
) -> Admission:
    """Return what shares with all hosts, else with this host's workers, else nothing.

    `run_folder` is the directory of the workers of one server, None if there is one
    process only.

    :raises MissingExtraError: `sharing` without the extra `redis`.
    """
    if sharing is not None:
        return _open_shared(quota, permits, streams, metrics, sharing)
    gate = LocalGate(quota, permits)
    if run_folder is None:
        return Admission(gate, LocalDirectory(streams), (gate.run,))
    peers = PeerDirectory(run_folder, streams)
    return Admission(gate, peers, (gate.run, peers.run))


def _open_shared(
    quota: Quota,
    permits: StreamPermits,
    streams: LocalStreams,
    metrics: Metrics,
    sharing: Sharing,
) -> Admission:
    if find_spec("coredis") is None:
        raise MissingExtraError
    from trio_ai_stream.admission.shared.directory import SharedDirectory
    from trio_ai_stream.admission.shared.gate import SharedGate

    gate = SharedGate(
        sharing.url,
        quota,
        permits,
        metrics,
        prefix=sharing.prefix,
        policy=sharing.policy,
        timeout_s=sharing.timeout_s,
        lease_s=sharing.lease_s,
    )
    return Admission(gate, SharedDirectory(gate, streams), (gate.run,))

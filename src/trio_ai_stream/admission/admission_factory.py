"""Opens the gate and the directory that a deployment has: alone, one host, or many.

Only here is it decided which; `shared` is imported only where it is used, because its
client takes most of a second to import and is an extra.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import trio

from trio_ai_stream.admission.directory import (
    LocalDirectory,
    LocalStreams,
    PeerDirectory,
    StreamDirectory,
)
from trio_ai_stream.admission.gate import Gate, LocalGate, Quota, StreamPermits
from trio_ai_stream.settings import Settings, SettingsError
from trio_ai_stream.telemetry.metrics import Metrics


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


def require_extra(settings: Settings) -> None:
    """Refuse settings for which something has to be installed.

    :raises SettingsError: REDIS_URL without what speaks to Redis.
    """
    if settings.REDIS_URL is not None and find_spec("coredis") is None:
        raise SettingsError(
            [
                "REDIS_URL: expected the extra `redis` to be installed, got none;"
                " install trio-ai-stream[redis], or unset REDIS_URL"
            ]
        )


def open_admission(
    settings: Settings,
    streams: LocalStreams,
    metrics: Metrics,
    run_folder: Path | None = None,
) -> Admission:
    """Return what shares with all hosts, else with this host's workers, else nothing.

    `run_folder` is the directory of the workers of one server, None if there is one
    process only.

    :raises SettingsError: as `require_extra`.
    """
    require_extra(settings)
    quota = Quota.per_second(settings.RATE_LIMIT)
    permits = StreamPermits(
        settings.MAX_CONCURRENT_STREAMS, settings.MAX_STREAMS_PER_CLIENT
    )
    if settings.REDIS_URL is not None:
        from trio_ai_stream.admission.shared.shared_directory import SharedDirectory
        from trio_ai_stream.admission.shared.shared_gate import SharedGate

        shared = SharedGate(
            settings.REDIS_URL.value,
            quota,
            permits,
            metrics,
            prefix=settings.REDIS_PREFIX,
            policy=settings.RATE_LIMIT_FALLBACK,
            timeout_s=settings.REDIS_TIMEOUT_SECS,
            lease_s=settings.REDIS_LEASE_SECS,
        )
        directory = SharedDirectory(
            shared,
            streams,
            run_folder=run_folder,
            peer_address=settings.PEER_ADDRESS,
        )
        return Admission(shared, directory, (shared.run,))
    gate = LocalGate(quota, permits)
    if run_folder is None:
        return Admission(gate, LocalDirectory(streams), (gate.run,))
    peers = PeerDirectory(run_folder, streams)
    return Admission(gate, peers, (gate.run, peers.run))

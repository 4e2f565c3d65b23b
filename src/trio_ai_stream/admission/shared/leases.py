"""The permits that this process holds in Valkey, kept alive by one heartbeat.

The book is the truth: what Valkey has of this process is made to agree with it. A
release is synchronous here and told to Valkey by the same task, in batches. Whatever
Valkey has lost (a restart, an expired lease, a release that fell into an outage) is put
right when the link comes up again, and when a heartbeat finds another number of streams
than the book has, twice in a row (once may be a decision in flight).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import trio

from trio_ai_stream.admission.shared.link import Client, Link, Unavailable
from trio_ai_stream.admission.shared.scripts import (
    ACQUIRE,
    ASSERT,
    BEAT,
    HELD,
    LEAVE,
    RELEASE,
    Keys,
    Script,
)

_BATCH = 200
"""Streams in one release or assertion: one call stays far below a millisecond."""


@dataclass(slots=True, eq=False)
class Lease:
    """One stream's permit. `stream_id` is its name in Valkey, None until it has one."""

    client_id: str
    request_id: str
    stream_id: str | None = None
    released: bool = False


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the last heartbeats said: live processes, and streams over all of them."""

    processes: int
    streams: int


class Leases:
    """The book of one process's permits, and the task that keeps Valkey in step."""

    def __init__(self, link: Link, keys: Keys, *, lease_s: float) -> None:
        self._link = link
        self._keys = keys
        self._lease_ms = int(lease_s * 1000)
        self._beat_s = lease_s / 3
        self._book: set[Lease] = set()
        self._pending: set[str] = set()
        self._to_release: list[str] = []
        self._wake = trio.Event()
        self._resync = False
        self._mismatches = 0
        self._last_processes = 1
        self.fleet = Fleet(processes=1, streams=0)

    def __len__(self) -> int:
        return len(self._book)

    async def acquire(self, lease: Lease, total: int, per_client: int) -> str:
        """Return `granted`, `server` or `client`; a granted lease is in the book.

        :raises Unavailable: no answer in time. Then, and when it is cancelled, Valkey
            is told to forget the stream, should it have granted it after all.
        """
        self._pending.add(lease.request_id)
        try:
            reply = await self._link.call(
                ACQUIRE,
                self._keys.permits,
                [*self._common, lease.request_id, lease.client_id, total, per_client],
            )
        except Unavailable:
            # A link that is down begins with a resync; one that is up has only been
            # too slow for us, and may have granted what we have given up.
            self._resync = self._resync or self._link.up
            self._wake.set()
            raise
        except BaseException:
            self._forget(lease.request_id)
            raise
        finally:
            self._pending.discard(lease.request_id)
        verdict = bytes(reply[0]).decode()
        if verdict == "granted":
            lease.stream_id = bytes(reply[1]).decode()
            self._book.add(lease)
            if not reply[2]:
                self._want_resync()
        return verdict

    def adopt(self, lease: Lease) -> None:
        """Enter a permit that was granted without Valkey; it hears of it later."""
        self._book.add(lease)

    def release(self, lease: Lease) -> None:
        """Give a permit back; synchronous, so that no clean-up can be cut short."""
        lease.released = True
        self._book.discard(lease)
        if lease.stream_id is not None:
            self._forget(lease.stream_id)

    async def leave(self) -> None:
        """End the lease now: whatever is still held counts no longer.

        :raises Unavailable: no answer in time; then the lease runs out by itself.
        """
        await self._link.call(LEAVE, self._keys.permits, self._common)

    async def run(
        self, _client: Client, /, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Bring Valkey in step, then keep it so; started once it is."""
        self._to_release.clear()  # the resync covers them
        await self._beat()
        await self._synchronise()
        task_status.started()
        await self._keep()

    async def _keep(self) -> None:
        next_beat = trio.current_time() + self._beat_s
        while True:
            self._wake = trio.Event()
            if not self._to_release and not self._resync:
                with trio.move_on_at(next_beat):
                    await self._wake.wait()
            await self._flush()
            if trio.current_time() >= next_beat:
                await self._beat()
                next_beat = trio.current_time() + self._beat_s
            if self._resync:
                await self._synchronise()

    @property
    def _common(self) -> list[Any]:
        return [self._keys.of, self._keys.process, self._lease_ms]

    def _forget(self, stream_id: str) -> None:
        # In an outage this grows by no more than the streams that Valkey knew of.
        self._to_release.append(stream_id)
        self._wake.set()

    def _want_resync(self) -> None:
        self._resync = True
        self._wake.set()

    async def _send(self, script: Script, *arguments: str) -> Any:
        return await self._link.send(
            script, self._keys.permits, [*self._common, *arguments]
        )

    async def _beat(self) -> None:
        before, in_flight = len(self._book), len(self._pending)
        known, held, processes, streams = await self._send(BEAT)
        # The larger of two beats: after an outage the others are not all back at once.
        self.fleet = Fleet(max(processes, self._last_processes), streams)
        self._last_processes = processes
        now = len(self._book)
        most = max(before, now) + in_flight + len(self._to_release)
        agrees = known and min(before, now) <= held <= most
        self._mismatches = 0 if agrees else self._mismatches + 1
        if not known or self._mismatches >= 2:
            self._want_resync()

    async def _flush(self) -> None:
        while self._to_release:
            batch = self._to_release[:_BATCH]
            await self._send(RELEASE, *batch)
            del self._to_release[:_BATCH]

    async def _synchronise(self) -> None:
        """Put in what Valkey lacks, then take out what it has too much of.

        In this order nobody is admitted into a place that is still taken.
        """
        self._resync, self._mismatches = False, 0
        leases = list(self._book)
        for start in range(0, len(leases), _BATCH):
            batch = leases[start : start + _BATCH]
            pairs = [
                text for lease in batch for text in (lease.request_id, lease.client_id)
            ]
            ids = await self._send(ASSERT, *pairs)
            for lease, stream_id in zip(batch, ids, strict=True):
                lease.stream_id = bytes(stream_id).decode()
                if lease.released:
                    self._to_release.append(lease.stream_id)
        held = {bytes(name).decode() for name in await self._send(HELD)}
        surplus = held - {lease.stream_id for lease in self._book}
        suffix = f"/{self._keys.process}"
        self._to_release += [
            name for name in surplus if name.removesuffix(suffix) not in self._pending
        ]
        await self._flush()

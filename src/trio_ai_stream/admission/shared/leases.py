"""The permits that this process holds in Valkey, and the one task that keeps them.

Only `run` writes permits to Valkey, one script after the other: each takes what has
been released and asked for since the last one, releases first. So what a stream gives
back is free before the next stream asks, nothing overtakes anything, and a decision is
one round trip, or two while another script is under way. What comes during a script
waits for the next one; no list is changed while a script with its entries is under way.

Each answer says how many streams Valkey has of this process. If that is not what this
process expects (a restart, an expired lease, a write of a lost connection that was
carried out late), Valkey is made to agree with this process at once. The same happens
when the link comes up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import trio

from trio_ai_stream.admission.shared.valkey_link import (
    Client,
    TooBusy,
    Unavailable,
    ValkeyLink,
    link_lost,
)
from trio_ai_stream.admission.shared.valkey_scripts import CHANGE, HELD, LEAVE, Keys

T = TypeVar("T")

_BATCH: Final = 200
"""Releases, and requests, in one script: it stays far below a millisecond."""

_UNLIMITED: Final = -1


@dataclass(slots=True, eq=False)
class Lease:
    """One stream's permit. `stream_id` is its name in Valkey, None until it has one."""

    client_id: str
    request_id: str
    stream_id: str | None = None


@dataclass(slots=True, eq=False)
class _Ask:
    """A request for a permit, and its answer; nobody waits for an adopted lease's."""

    lease: Lease
    total: int = _UNLIMITED
    per_client: int = 0
    waiting: bool = False
    verdict: str = ""
    failure: Unavailable | None = None
    answered: trio.Event = field(default_factory=trio.Event)


class Leases:
    """The permits of one process, and the task that keeps Valkey in step.

    The last heartbeats saw so many live `processes`.
    """

    def __init__(self, link: ValkeyLink, keys: Keys, *, lease_s: float) -> None:
        self._link = link
        self._keys = keys
        self._common: list[Any] = [keys.of, keys.process, int(lease_s * 1000)]
        self._beat_s = lease_s / 3
        self._leases: dict[Lease, None] = {}  # a set in the order of admission
        self._held: set[str] = set()  # the names that Valkey has; `run` alone writes
        self._asked: list[_Ask] = []
        self._to_release: list[str] = []
        self._wake = trio.Event()
        self._left: trio.Event | None = None
        self._running = False
        self._changing = False
        self._resync = False
        self._last_processes = 1
        self.processes = 1

    def __len__(self) -> int:
        return len(self._leases)

    @property
    def left(self) -> bool:
        """Whether this process has said, or is saying, that it ends."""
        return self._left is not None

    @property
    def settled(self) -> bool:
        """Whether Valkey has been told everything."""
        busy = self._asked or self._to_release or self._resync or self._changing
        ours = {lease.stream_id for lease in self._leases}
        return not busy and self._held == ours

    async def acquire(self, lease: Lease, total: int, per_client: int) -> str:
        """Return `granted`, `server` or `client`; a granted lease is held from then on.

        :raises Unavailable: no answer within the link's timeout.

        Cancellation: a permit that Valkey grants afterwards is given back.
        """
        if not (self._running and self._link.up):
            raise Unavailable("unavailable", "the link is down")
        ask = _Ask(lease, total, per_client, waiting=True)
        self._put(ask)
        deadline = trio.current_time() + self._link.timeout_s
        try:
            with trio.move_on_at(deadline):
                await ask.answered.wait()
        except BaseException:
            if ask.verdict == "granted":  # between our cancel and our turn
                self.release(lease)
            raise
        finally:
            ask.waiting = False
        if ask.failure is not None:
            raise Unavailable(ask.failure.cause, ask.failure.detail)
        if not ask.verdict:
            raise self._link.late(deadline, "acquire")
        return ask.verdict

    def adopt(self, lease: Lease) -> None:
        """Enter a permit that was granted without Valkey, which is told of it."""
        self._leases[lease] = None
        if self._running:
            self._put(_Ask(lease))

    def release(self, lease: Lease) -> None:
        """Give a permit back; synchronous, so that no clean-up can be cut short."""
        del self._leases[lease]
        if lease.stream_id is not None:
            self._forget(lease.stream_id)

    async def leave(self) -> None:
        """End the lease now: whatever is still held counts no longer.

        Nor is the process looked for at its address any more. Waits one timeout at
        most; if Valkey did not answer, the lease runs out by itself.
        """
        if self._running:
            self._left = trio.Event()
            self._wake.set()
            with trio.move_on_after(self._link.timeout_s):
                await self._left.wait()

    async def run(
        self, _client: Client, /, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Bring Valkey in step, then keep it so until asked to leave.

        :raises Unavailable: Valkey did not answer.
        """
        self._running = True
        try:
            self._count(await self._change([], []))
            await self._synchronise()
            task_status.started()
            await self._keep()
        finally:
            self._running = False
            self._to_release = []  # the next run's synchronisation covers them
            asked, self._asked = self._asked, []
            _fail(asked, link_lost())

    async def _keep(self) -> None:
        next_beat = trio.current_time() + self._beat_s
        while True:
            self._wake = trio.Event()
            due = self._asked or self._to_release or self._resync
            if not due and self._left is None:
                with trio.move_on_at(next_beat):
                    await self._wake.wait()
            try:
                if self._resync:
                    await self._synchronise()
                beat = trio.current_time() >= next_beat
                if beat or self._asked or self._to_release:
                    await self._round(beat=beat)
                    if beat:
                        next_beat = trio.current_time() + self._beat_s
                elif self._left is not None:
                    await self._link.send(LEAVE, self._keys.leaving, self._common)
                    self._left.set()
                    return
            except TooBusy:
                self._resync = True  # what was sent may have been done

    async def _round(self, *, beat: bool = False) -> None:
        """Tell Valkey of what was released and asked since the last round."""
        released, self._to_release = _split(self._to_release)
        asked: list[_Ask] = []
        if not self._to_release:  # else a name that is not free yet might be asked for
            asked, self._asked = _split(self._asked)
        asked = [ask for ask in asked if ask.waiting or ask.lease in self._leases]
        if not (released or asked or beat):
            return
        try:
            reply = await self._change(released, asked)
        except BaseException as exc:
            _fail(asked, exc if isinstance(exc, Unavailable) else link_lost())
            raise
        if beat:
            self._count(reply)
        known, held = reply[:2]
        if not known or held != len(self._held):
            self._resync = True
            self._wake.set()

    async def _synchronise(self) -> None:
        """Put in what Valkey lacks, then take out what it has too much of.

        In this order nobody is admitted into a place that is still taken.
        """
        self._resync = False
        leases = list(self._leases)
        for start in range(0, len(leases), _BATCH):
            batch = leases[start : start + _BATCH]
            live = [_Ask(lease) for lease in batch if lease in self._leases]
            await self._change([], live)
        names = await self._link.send(HELD, self._keys.permits, self._common)
        self._held = {bytes(name).decode() for name in names}
        ours = {lease.stream_id for lease in self._leases}
        self._to_release = sorted(self._held - ours)
        while self._to_release:
            released, self._to_release = _split(self._to_release)
            await self._change(released, [])

    async def _change(self, released: list[str], asked: list[_Ask]) -> list[Any]:
        """Send one script, and do what its answer says; return the answer's numbers."""
        arguments = [*self._common, len(released), *released]
        for ask in asked:
            lease = ask.lease
            arguments += [lease.request_id, lease.client_id, ask.total, ask.per_client]
        # Somebody who waits does so for one timeout; a heartbeat may take longer.
        waited_for = any(ask.waiting for ask in asked)
        send = self._link.call if waited_for else self._link.send
        self._changing = True
        try:
            reply: list[Any] = await send(CHANGE, self._keys.permits, arguments)
        finally:
            self._changing = False
        self._held.difference_update(released)
        for ask, answer in zip(asked, reply[4:], strict=True):
            self._answer(ask, bytes(answer).decode())
        return reply[:4]

    def _answer(self, ask: _Ask, answer: str) -> None:
        verdict, _, name = answer.partition(" ")
        if verdict == "granted":
            self._held.add(name)
            if ask.waiting:
                self._leases[ask.lease] = None
            if ask.lease in self._leases:
                ask.lease.stream_id = name
            else:  # cancelled, or ended, while the script was under way
                self._forget(name)
        ask.verdict = verdict
        ask.answered.set()

    def _count(self, reply: list[Any]) -> None:
        processes = reply[2]
        # The larger of two beats: after an outage the others are not all back at once.
        self.processes = max(processes, self._last_processes)
        self._last_processes = processes

    def _put(self, ask: _Ask) -> None:
        self._asked.append(ask)
        self._wake.set()

    def _forget(self, stream_id: str) -> None:
        if self._running:
            self._to_release.append(stream_id)
            self._wake.set()


def _fail(asked: Iterable[_Ask], reason: Unavailable) -> None:
    for ask in asked:
        ask.failure = reason
        ask.answered.set()


def _split(entries: list[T]) -> tuple[list[T], list[T]]:
    """Return the next batch, and a new list of what remains."""
    return entries[:_BATCH], entries[_BATCH:]

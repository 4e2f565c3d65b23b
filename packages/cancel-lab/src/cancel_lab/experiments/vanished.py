"""Clients that vanish without a word, as when their host loses its network.

No FIN and no reset arrives, and nothing that the server sends is acknowledged. Only a
bound on that (or a heartbeat whose loss is noticed) ends the stream.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import trio

from cancel_lab import network
from cancel_lab.clients.acts import Transport
from cancel_lab.records import RunRecord, Status
from cancel_lab.scenes import STEADY
from cancel_lab.trial import Arena, Live, bring, sut
from cancel_lab.upstream import Entry

LOOK_EVERY_S = 0.25


async def vanished(
    arenas: Sequence[Arena], *, streams: int = 5, for_s: float
) -> list[RunRecord]:
    """Let the clients of all servers vanish at once; one record a stream.

    A run passes if upstream is closed within ``for_s``. Cancellation: all are closed.
    """
    lives: list[tuple[Arena, Live]] = []
    try:
        for arena in arenas:
            for _ in range(streams):
                live = await bring(arena, STEADY, Transport.H1)
                lives.append((arena, live))
        cause = time.monotonic_ns()
        network.forget(
            (live.stream.connection.local_port, arena.port) for arena, live in lives
        )
        entries = await _watch(lives, for_s)
        watched = time.monotonic_ns()
        return [
            _record(arena, live, cause, entries.get(live.tag), watched)
            for arena, live in lives
        ]
    finally:
        for _, live in lives:
            live.stream.connection.close()


async def _watch(lives: Sequence[tuple[Arena, Live]], for_s: float) -> dict[int, Entry]:
    """Return the entries of the streams that upstream has lost by then."""
    gone: dict[int, Entry] = {}
    with trio.move_on_after(for_s):
        while len(gone) < len(lives):
            await trio.sleep(LOOK_EVERY_S)
            for arena, live in lives:
                if live.tag in gone:
                    continue
                entry = await arena.upstream.look(live.tag, since=live.since)
                if entry is not None and entry.client_gone_ns is not None:
                    gone[live.tag] = entry
    return gone


def _record(
    arena: Arena, live: Live, cause: int, entry: Entry | None, watched: int
) -> RunRecord:
    return RunRecord(
        run_id=f"vanished-{arena.adapter.name}-{live.tag}",
        tier="probe",
        experiment="vanished",
        sut=sut(arena.adapter),
        cause="client_vanishes",
        phase=STEADY.name,
        transport=Transport.H1.value,
        status=Status.CENSORED if entry is None else Status.PASS,
        times={
            "t_cause": cause,
            "t_up": None if entry is None else entry.client_gone_ns,
        },
        watched_until_ns=watched,
    )

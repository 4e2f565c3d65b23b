"""A client that stops reading: what is pulled and held for it, and for how long."""

from __future__ import annotations

import time

import trio

from cancel_lab import procfs
from cancel_lab.clients.acts import Act, Transport
from cancel_lab.records import RunRecord, Status
from cancel_lab.scenes import FLOOD
from cancel_lab.trial import Arena, Live, bring, sut
from cancel_lab.upstream import Entry

SAMPLE_S = 0.25  # from one look at the server to the next
MEMORY_LIMIT = 1 << 30  # bytes; a server that grows past it is cut short, and said so


async def stalled(
    arena: Arena, *, transport: Transport = Transport.H1, for_s: float
) -> RunRecord:
    """Watch one stalled stream for at most ``for_s`` seconds.

    Upstream sends without end and as fast as it is read. The run passes if the server
    ends it by itself; if it does not, ``t_up`` is censored.
    """
    live = await bring(arena, FLOOD, transport, small_window=True)
    series: dict[str, list[tuple[int, float]]] = {
        "pulled_bytes": [],
        "pulled_tokens": [],
        "rss_bytes": [],
    }
    cause = await live.stream.act(Act.STOP_READING)
    entry = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.stream.idle)
            with trio.move_on_after(for_s):
                entry = await _sample(arena, live, cause, series)
            nursery.cancel_scope.cancel(reason="the stalled stream was watched enough")
    finally:
        live.stream.connection.close()
    gone = None if entry is None else entry.client_gone_ns
    grown = series["rss_bytes"][-1][1] if series["rss_bytes"] else 0
    return RunRecord(
        run_id=f"stalled-{arena.adapter.name}-{live.tag}",
        tier="probe",
        experiment="stalled",
        sut=sut(arena.adapter),
        cause=Act.STOP_READING.value,
        phase=FLOOD.name,
        transport=transport.value,
        status=Status.CENSORED if gone is None else Status.PASS,
        reason="cut short at 1 GiB of memory" if grown > MEMORY_LIMIT else None,
        times={"t_cause": cause, "t_up": gone},
        watched_until_ns=time.monotonic_ns(),
        tokens={"read": live.stream.seen.tokens}
        | ({} if entry is None else {"sent": entry.tokens_sent}),
        series=series,
        terminal=live.stream.seen.ending,
    )


async def _sample(
    arena: Arena, live: Live, cause: int, series: dict[str, list[tuple[int, float]]]
) -> Entry | None:
    """Sample until upstream has lost its connection; ``None`` at the memory limit."""
    while True:
        entry = await arena.upstream.look(live.tag, since=live.since)
        now = time.monotonic_ns() - cause
        memory = procfs.resident_bytes(arena.server.pid)
        if memory is not None:
            series["rss_bytes"].append((now, memory))
        if entry is not None:
            series["pulled_bytes"].append((now, entry.bytes_sent))
            series["pulled_tokens"].append((now, entry.tokens_sent))
            if entry.client_gone_ns is not None:
                return entry
        if memory is not None and memory > MEMORY_LIMIT:
            return None
        await trio.sleep(SAMPLE_S)

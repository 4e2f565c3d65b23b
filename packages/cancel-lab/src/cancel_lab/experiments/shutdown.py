"""SIGTERM with live streams: what each client gets, and when the process is gone."""

from __future__ import annotations

import trio
import trio.testing

from cancel_lab.clients.acts import Transport
from cancel_lab.records import RunRecord, Status
from cancel_lab.scenes import STEADY
from cancel_lab.trial import Arena, Live, bring, sut


async def shutdown(
    arena: Arena,
    *,
    streams: int = 5,
    transport: Transport = Transport.H1,
    for_s: float,
) -> list[RunRecord]:
    """Return one record per live stream; the server is gone or given up afterwards.

    The streams are endless, so only the server's own shutdown can end them. A run
    passes if its client got a terminal event and the process exited in time.
    """
    lives = [await bring(arena, STEADY, transport) for _ in range(streams)]
    cause = 0
    exited = None
    try:
        async with trio.open_nursery() as nursery:
            for live in lives:
                nursery.start_soon(live.stream.read_to_end)
            cause = arena.server.terminate()
            with trio.move_on_after(for_s):
                exited = await arena.server.exited()
                await trio.testing.wait_all_tasks_blocked()  # the clients read the end
            nursery.cancel_scope.cancel(reason="the shutdown was watched enough")
        bound = cause + int(for_s * 1e9)
        return [
            await _record(arena, live, transport, (cause, exited, bound))
            for live in lives
        ]
    finally:
        for live in lives:
            live.stream.connection.close()


async def _record(
    arena: Arena,
    live: Live,
    transport: Transport,
    instants: tuple[int, int | None, int],
) -> RunRecord:
    cause, exited, bound = instants
    entry = await arena.upstream.look(live.tag, since=live.since)
    seen = live.stream.seen
    told = bool(seen.terminals)
    if exited is None:
        status = Status.CENSORED
    else:
        status = Status.PASS if told else Status.VIOLATED
    return RunRecord(
        run_id=f"shutdown-{arena.adapter.name}-{live.tag}",
        tier="probe",
        experiment="shutdown",
        sut=sut(arena.adapter),
        cause="sigterm",
        phase=STEADY.name,
        transport=transport.value,
        status=status,
        violations=[] if told or exited is None else ["no terminal event"],
        times={
            "t_cause": cause,
            "t_client_end": seen.ended_ns,
            "t_up": None if entry is None else entry.client_gone_ns,
            "t_process_exit": exited,
        },
        watched_until_ns=bound,
        terminal=seen.ending,
    )

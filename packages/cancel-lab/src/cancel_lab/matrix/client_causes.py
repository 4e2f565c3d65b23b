"""Runs of the cells in which the client is the cause."""

from __future__ import annotations

import dataclasses

import trio

from cancel_lab.clients.acts import Act
from cancel_lab.clients.dial import dial
from cancel_lab.matrix.cells import CONNECTING, WRITING, Cell
from cancel_lab.matrix.judge import record
from cancel_lab.matrix.logs import Log
from cancel_lab.matrix.watching import new_run, watch
from cancel_lab.records import RunRecord
from cancel_lab.trial import (
    SETTLE_S,
    Arena,
    Live,
    TrialError,
    bring,
    request_id,
)

WATCH_S = 3.0
BLOCKED_WITHIN_S = 5.0
LOOK_S = 0.03


async def client_run(arena: Arena, log: Log, cell: Cell) -> RunRecord:
    """Make one run. Errors: TrialError if the stream does not reach its phase."""
    assert cell.scene is not None
    act = Act(cell.cause)
    if cell.scene is CONNECTING:
        live = await _connecting(arena, cell)
    else:
        writing = cell.scene is WRITING
        live = await bring(arena, cell.scene, cell.transport, small_window=writing)
    try:
        async with trio.open_nursery() as nursery:
            if cell.scene is WRITING and act is not Act.STOP_READING:
                await _blocked(arena, live)
            cause = await live.stream.act(act)
            if act is Act.STOP_READING:
                nursery.start_soon(live.stream.idle)
            run = new_run(live.tag, cause, live.stream.seen)
            await watch(arena, log, cell, run, since=live.since, watch_s=WATCH_S)
            nursery.cancel_scope.cancel(reason="the run was watched to its end")
    finally:
        live.stream.connection.close()
    return record(arena, cell, run)


async def _connecting(arena: Arena, cell: Cell) -> Live:
    """Return a stream whose server is waiting for a connection to upstream."""
    assert cell.scene is not None
    tag = arena.upstream.tag()
    since = await arena.upstream.newest()
    request = arena.adapter.request(cell.scene.model(tag))
    headers = {**request.headers, "x-request-id": request_id(tag)}
    request = dataclasses.replace(request, headers=headers)
    stream = await dial(arena.port, request, cell.transport)
    started = await stream.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.read_to_end)
        await trio.sleep(SETTLE_S)
        nursery.cancel_scope.cancel(reason="the server has had time to connect")
    return Live(stream=stream, tag=tag, since=since, started_ns=started)


async def _blocked(arena: Arena, live: Live) -> None:
    """Return once upstream's sending has come to a halt behind the unread answer."""
    with trio.move_on_after(BLOCKED_WITHIN_S) as waiting:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.stream.idle)
            before = -1
            while before != (now := await _sent(arena, live)):
                before = now
                await trio.sleep(LOOK_S)
            nursery.cancel_scope.cancel(reason="the writer is blocked")
    if not waiting.cancelled_caught:
        return
    raise TrialError(
        f"expected backpressure within {BLOCKED_WITHIN_S:g} s of a client that does "
        "not read, but upstream went on sending"
    )


async def _sent(arena: Arena, live: Live) -> int:
    """Return how many bytes upstream has sent of the stream's answer."""
    entry = await arena.upstream.look(live.tag, since=live.since)
    return 0 if entry is None else entry.bytes_sent

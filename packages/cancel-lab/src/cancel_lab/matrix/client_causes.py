"""Runs of the cells in which the client is the cause."""

from __future__ import annotations

import trio

from cancel_lab.clients.acts import Act
from cancel_lab.matrix.cells import CONNECTING, WRITING, Cell
from cancel_lab.matrix.judge import new_run, record, watch
from cancel_lab.matrix.logs import Log
from cancel_lab.records import RunRecord
from cancel_lab.trial import SETTLE_S, Arena, Live, TrialError, ask, bring

WATCH_S = 3.0
BLOCKED_WITHIN_S = 5.0
LOOK_S = 0.03


async def client_run(arena: Arena, log: Log, cell: Cell) -> RunRecord:
    """Make one run. Errors: TrialError if the stream does not reach its phase."""
    assert cell.scene is not None
    act = Act(cell.cause)
    if cell.scene is CONNECTING:
        live = await ask(arena, cell.scene, cell.transport)
    else:
        writing = cell.scene is WRITING
        live = await bring(arena, cell.scene, cell.transport, small_window=writing)
    try:
        if cell.scene is CONNECTING:
            await _let_connect(live)
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


async def _let_connect(live: Live) -> None:
    """Send the request; its server then waits for a connection to upstream."""
    await live.stream.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(live.stream.read_to_end)
        await trio.sleep(SETTLE_S)
        nursery.cancel_scope.cancel(reason="the server has had time to connect")


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

"""Runs of the cells in which a budget, upstream, an operator or a signal is the cause.

The cause of a budget is the instant at which it falls due. From outside that is known
to within the time a request takes to arrive, so these latencies are a little too long.
"""

from __future__ import annotations

import time

import trio

from cancel_lab.clients.acts import Act
from cancel_lab.clients.chat_stream import ChatRequest, ChatStream
from cancel_lab.clients.connection import connect
from cancel_lab.clients.http1 import HTTP1Stream
from cancel_lab.matrix import sites
from cancel_lab.matrix.cells import CANCELLED_DETACHED, Cell
from cancel_lab.matrix.judge import Run, new_run, record, unmade, watch
from cancel_lab.matrix.logs import Log
from cancel_lab.matrix.variants import GRACE_S
from cancel_lab.records import RunRecord, Status
from cancel_lab.trial import Arena, ask, bring, request_id

WATCH_S = 10.0  # retries of an upstream fault take seconds
EXIT_WITHIN_S = 5.0
READ_END_S = 0.005  # another task reads; its end has no event to wait for
READ_ENDS = 200
NO_SUCH_METHOD = (404, 405)
NS_PER_S = 1e9
BUDGETS = {
    "connect_timeout": sites.CONNECT_S,
    "first_token_timeout": sites.FIRST_TOKEN_S,
    "stream_deadline": sites.DEADLINE_S,
}


async def answer_run(arena: Arena, log: Log, cell: Cell) -> RunRecord:
    """Make a run whose cause needs nobody's hand: a budget, or upstream's script."""
    assert cell.scene is not None
    live = await ask(arena, cell.scene, cell.transport)
    try:
        started = await live.stream.start()
        run = new_run(live.tag, started, live.stream.seen)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.stream.read_to_end)
            await watch(arena, log, cell, run, since=live.since, watch_s=WATCH_S)
            await _over(live.stream)
            nursery.cancel_scope.cancel(reason="the run was watched to its end")
    finally:
        live.stream.connection.close()
    run.cause_ns = _due(cell, run, started)
    return record(arena, cell, run)


def _due(cell: Cell, run: Run, started: int) -> int:
    """Return the instant of the cause, once all is known."""
    entry = run.entry
    if cell.cause in BUDGETS:
        return started + int(BUDGETS[cell.cause] * NS_PER_S)
    if entry is None:
        return started
    if cell.cause == "stream_idle_timeout":
        last = entry.recent_sends[-1][0] if entry.recent_sends else started
        return last + int(sites.IDLE_S * NS_PER_S)
    return entry.finish_sent_ns or entry.ended_ns or started


async def cancel_run(arena: Arena, log: Log, cell: Cell) -> RunRecord:
    """Make a run that is cancelled by its id, over a connection of its own."""
    assert cell.scene is not None
    live = await bring(arena, cell.scene, cell.transport)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.stream.read_to_end)
            cause, status = await _delete(arena, f"/streams/{request_id(live.tag)}")
            run = new_run(live.tag, cause, live.stream.seen)
            if status not in NO_SUCH_METHOD:
                await watch(arena, log, cell, run, since=live.since, watch_s=WATCH_S)
                await _over(live.stream)
            nursery.cancel_scope.cancel(reason="the run was watched to its end")
    finally:
        live.stream.connection.close()
    if status in NO_SUCH_METHOD:
        reason = f"the server has no DELETE /streams/ID (status {status})"
        return unmade(cell, Status.SKIPPED, reason)
    return record(arena, cell, run)


async def detached_run(arena: Arena, log: Log, cell: Cell) -> RunRecord:
    """Make a run whose client leaves a stream that outlives it, for a grace.

    The cause is the end of the grace, or a cancel by id before it.
    """
    assert cell.scene is not None
    live = await bring(arena, cell.scene, cell.transport)
    try:
        cause = await live.stream.act(Act.FIN) + int(GRACE_S * NS_PER_S)
        if cell.cause == CANCELLED_DETACHED:
            await trio.sleep(GRACE_S / 3)
            cause, _ = await _delete(arena, f"/streams/{request_id(live.tag)}")
        run = new_run(live.tag, cause, live.stream.seen)
        await watch(arena, log, cell, run, since=live.since, watch_s=WATCH_S)
    finally:
        live.stream.connection.close()
    return record(arena, cell, run)


async def _delete(arena: Arena, path: str) -> tuple[int, int | None]:
    request = ChatRequest(path=path, body=b"", method="DELETE")
    stream = HTTP1Stream(await connect(arena.server.port), request, sink=bytearray())
    try:
        sent = await stream.start()
        await stream.read_to_end()
    finally:
        stream.connection.close()
    return sent, stream.seen.status


async def _over(stream: ChatStream) -> None:
    """Give the client a moment to read the end that the log already reports."""
    for _ in range(READ_ENDS):
        if stream.seen.over:
            return
        await trio.sleep(READ_END_S)


async def shutdown_runs(
    arena: Arena, log: Log, cell: Cell, streams: int
) -> list[RunRecord]:
    """End the server under some live streams; one record for each of them."""
    assert cell.scene is not None
    lives = [await bring(arena, cell.scene, cell.transport) for _ in range(streams)]
    runs: list[Run] = []
    try:
        async with trio.open_nursery() as nursery:
            for live in lives:
                nursery.start_soon(live.stream.read_to_end)
            due = arena.server.terminate() + int(sites.DRAIN_S * NS_PER_S)
            exited = None
            with trio.move_on_after(sites.DRAIN_S + EXIT_WITHIN_S):
                exited = await arena.server.exited()
            for live in lives:
                await _over(live.stream)
                run = new_run(live.tag, due, live.stream.seen)
                run.times = {"t_process_exit": exited}
                runs.append(
                    await watch(arena, log, cell, run, since=live.since, watch_s=0.5)
                )
            nursery.cancel_scope.cancel(reason="the shutdown was watched to its end")
    finally:
        for live in lives:
            live.stream.connection.close()
    for run in runs:
        run.watched_until_ns = time.monotonic_ns()
    return [record(arena, cell, run) for run in runs]

"""Waits for what a cause has to bring about: upstream's notice and the log record."""

from __future__ import annotations

import time

import trio

from cancel_lab.clients.sse import Seen
from cancel_lab.matrix.cells import Cell
from cancel_lab.matrix.judge import Run
from cancel_lab.matrix.logs import Log
from cancel_lab.trial import Arena, gone, request_id


async def watch(
    arena: Arena, log: Log, cell: Cell, run: Run, *, since: int, watch_s: float
) -> Run:
    """Fill in what comes within ``watch_s``; what does not come stays ``None``."""

    async def upstream() -> None:
        run.entry = await arena.upstream.entry(run.tag, gone, since=since)

    async def recorded() -> None:
        run.ended = await log.ended(request_id(run.tag))

    with trio.move_on_after(watch_s):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorded)
            if cell.upstream_closes:
                nursery.start_soon(upstream)
    run.watched_until_ns = time.monotonic_ns()
    if run.entry is None:
        run.entry = await arena.upstream.look(run.tag, since=since)
    run.records = len(log.records(request_id(run.tag)))
    return run


def new_run(tag: int, cause_ns: int, seen: Seen) -> Run:
    """Return a run of which nothing but the cause is known."""
    return Run(tag=tag, cause_ns=cause_ns, watched_until_ns=cause_ns, seen=seen)

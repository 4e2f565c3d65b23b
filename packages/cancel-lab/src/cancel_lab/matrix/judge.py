"""One run of a cell: what was seen of it, and which invariants it broke."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import trio

from cancel_lab.adapters.catalogue import OURS
from cancel_lab.clients.sse import Seen
from cancel_lab.matrix.cells import Cell
from cancel_lab.matrix.logs import Ended, Log
from cancel_lab.records import RunRecord, Status
from cancel_lab.trial import Arena, gone, request_id, sut
from cancel_lab.upstream import Entry

BOUND_MS = 50.0  # facts C2, I1: one stream, from cause to upstream's notice
UNTIMED = frozenset({"upstream_bad_json"})  # the ledger does not stamp one event
NS_PER_MS = 1e6


@dataclass(kw_only=True)
class Run:
    """What was seen of one run of a cell, filled in as it is seen."""

    tag: int
    cause_ns: int
    watched_until_ns: int
    seen: Seen
    entry: Entry | None = None
    ended: Ended | None = None
    records: int = 0
    times: dict[str, int | None] = field(default_factory=dict)


def new_run(tag: int, cause_ns: int, seen: Seen) -> Run:
    """Return a run of which nothing but the cause is known."""
    return Run(tag=tag, cause_ns=cause_ns, watched_until_ns=cause_ns, seen=seen)


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


def bound_ms(cell: Cell) -> float:
    """Return how soon upstream has to notice.

    A stall is one write timeout, plus the time it takes to fill the buffers on the way.
    """
    if cell.outcome == "client_stalled":
        return 2000.0
    return BOUND_MS


def violations(cell: Cell, run: Run) -> list[str]:
    """Return which of I1, I3 and I6 of facts C2 the run broke, in words."""
    broken = []
    gone_ns = None if run.entry is None else run.entry.client_gone_ns
    if cell.upstream_closes:
        late = None if gone_ns is None else (gone_ns - run.cause_ns) / NS_PER_MS
        if late is None:
            broken.append("I1 upstream's connection was not closed")
        elif late > bound_ms(cell):
            broken.append(f"I1 upstream noticed after more than {bound_ms(cell):g} ms")
    if run.records != 1:
        broken.append(f"I3 {run.records} terminal records")
    if run.ended is not None and run.ended[1].get("outcome") != cell.outcome:
        broken.append(f"I6 outcome {run.ended[1].get('outcome')}, not {cell.outcome}")
    if cell.ending is not None:
        broken += _ending(cell.ending, run.seen)
    return broken


def _ending(expected: str, seen: Seen) -> list[str]:
    if len(seen.terminals) != 1:
        return [f"I3 {len(seen.terminals)} terminal events ({seen.ending})"]
    if not seen.terminals[0].startswith(expected):
        return [f"I3 terminal event {seen.terminals[0]}, not {expected}"]
    if seen.events_after_terminal:
        return ["I3 events after the terminal one"]
    return [] if seen.complete else [f"I3 after its terminal event {seen.ending}"]


def record(arena: Arena, cell: Cell, run: Run) -> RunRecord:
    """Return the record of a run, with its verdict."""
    broken = violations(cell, run)
    entry = run.entry
    known = cell.cause not in UNTIMED
    times: dict[str, int | None] = {"t_cause": run.cause_ns if known else None}
    times["t_log"] = None
    if run.ended is not None:
        times["t_log"] = run.ended[0]
    if cell.upstream_closes:
        times["t_up"] = None if entry is None else entry.client_gone_ns
    if cell.ending is not None:
        times["t_client_end"] = run.seen.ended_ns
    tokens = {"read": run.seen.tokens}
    if entry is not None:
        tokens["sent"] = entry.tokens_sent
        if cell.upstream_closes:
            tokens["wasted"] = entry.wasted(run.cause_ns, run.seen.tokens)
    return RunRecord(
        run_id=f"matrix-{run.tag}",
        tier="matrix",
        experiment="matrix",
        sut=sut(arena.adapter),
        cause=cell.cause,
        phase=cell.phase,
        transport=cell.transport.value,
        variant=cell.variant.value,
        status=Status.VIOLATED if broken else Status.PASS,
        violations=broken,
        times=times | run.times,
        watched_until_ns=run.watched_until_ns,
        tokens=tokens,
        cause_recorded=None if run.ended is None else run.ended[1].get("outcome"),
        terminal=None if cell.ending is None else run.seen.ending,
    )


def unmade(cell: Cell, status: Status, reason: str) -> RunRecord:
    """Return the record of a run, or a whole cell, that was not made, and why."""
    return RunRecord(
        run_id=f"matrix-{status}-{cell.cause}-{cell.phase}-{cell.transport}"
        f"{cell.variant and '-'}{cell.variant}",
        tier="matrix",
        experiment="matrix",
        sut=sut(OURS),
        cause=cell.cause,
        phase=cell.phase,
        transport=cell.transport.value,
        variant=cell.variant.value,
        status=status,
        reason=reason,
    )

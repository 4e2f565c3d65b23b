"""Runs the matrix: sites one after the other, their cells' runs within them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from cancel_lab.clients.acts import Act
from cancel_lab.clients.connection import ConnectionEndedError
from cancel_lab.matrix import sites
from cancel_lab.matrix.cells import ABANDONED, CANCELLED_DETACHED, Cell, Site
from cancel_lab.matrix.client_causes import client_run
from cancel_lab.matrix.judge import unmade
from cancel_lab.matrix.leaks import Leaks
from cancel_lab.matrix.logs import Log
from cancel_lab.matrix.other_causes import (
    answer_run,
    cancel_run,
    detached_run,
    shutdown_runs,
)
from cancel_lab.matrix.variants import Variant, missing
from cancel_lab.process import ServerError
from cancel_lab.progress import Progress
from cancel_lab.records import Emit, RunRecord, Status
from cancel_lab.trial import Arena, TrialError
from cancel_lab.upstream import Upstream

AT_ONCE = 6  # runs of a cell that times nothing shorter than a budget
STREAMS_AT_SHUTDOWN = 5
ACTS = frozenset(act.value for act in Act)
PROMPT = ("cancel_by_id", ABANDONED, CANCELLED_DETACHED)
FAILURES = (TrialError, ServerError, ConnectionEndedError, OSError)

Runner = Callable[[Arena, Log, Cell], Awaitable[RunRecord]]
Tls = tuple[Path, Path] | None


async def matrix(
    cells: Sequence[Cell], upstream: Upstream, emit: Emit, *, n: int = 30
) -> None:
    """Make ``n`` runs of each cell and emit them; impossible cells are emitted too.

    Cancellation: all children are ended.
    """
    for cell in cells:
        if cell.impossible is not None:
            emit(unmade(cell, Status.SKIPPED, cell.impossible))
    able = [cell for cell in cells if cell.impossible is None]
    with sites.certificate() as certificate, Progress("matrix", len(able)) as progress:
        campaign = _Campaign(upstream, emit, n, progress)
        for site in Site:
            for tls in (None, certificate):
                here = [c for c in able if c.site is site and not c.variant]
                here = [c for c in here if c.transport.tls is (tls is not None)]
                if here:
                    await campaign.site(site, here, tls)
        for variant in Variant:
            here = [c for c in able if c.variant is variant and variant]
            if here and (reason := missing(variant)) is not None:
                for cell in here:
                    emit(unmade(cell, Status.SKIPPED, reason))
            elif here:
                await campaign.site(Site.PATIENT, here, None)


def runner_of(cell: Cell) -> Runner:
    """Return what makes one run of a cell."""
    if cell.cause in (ABANDONED, CANCELLED_DETACHED):
        return detached_run
    if cell.cause in ACTS:
        return client_run
    return cancel_run if cell.cause == "cancel_by_id" else answer_run


def timed_alone(cell: Cell) -> bool:
    """Say whether a cell's latency is short enough that other runs would disturb it."""
    prompt = cell.cause in ACTS or cell.cause in PROMPT
    return prompt and cell.site is not Site.STALLING


@dataclass(frozen=True)
class _Campaign:
    upstream: Upstream
    emit: Emit
    n: int
    progress: Progress

    async def site(self, site: Site, cells: Sequence[Cell], tls: Tls) -> None:
        """Run the cells that need one configuration of the server, in one variant."""
        variant = cells[0].variant
        if site is Site.DRAINING:
            for cell in cells:
                await self._shutdowns(cell)
            return
        try:
            async with sites.site_arena(
                site, self.upstream, tls=tls, variant=variant
            ) as arena:
                log = Log(arena.server)
                leaks = await Leaks.baseline(
                    arena, site, tls=tls is not None, variant=variant
                )
                for cell in cells:
                    await self._cell(arena, log, cell)
                causes = {cell.cause for cell in cells}
                self.emit(await leaks.record(log, causes))
        except ServerError as exc:
            for cell in cells:
                self.emit(unmade(cell, Status.ERROR, str(exc)))

    async def _cell(self, arena: Arena, log: Log, cell: Cell) -> None:
        self.progress.advance(f"{cell.cause}, {cell.phase}, {cell.transport}")
        run_one = runner_of(cell)
        slots = trio.CapacityLimiter(1 if timed_alone(cell) else AT_ONCE)

        async def one() -> None:
            async with slots:
                try:
                    self.emit(await run_one(arena, log, cell))
                except FAILURES as exc:
                    self.emit(unmade(cell, Status.ERROR, str(exc)))

        async with trio.open_nursery() as nursery:
            for _ in range(self.n):
                nursery.start_soon(one)

    async def _shutdowns(self, cell: Cell) -> None:
        self.progress.advance(f"{cell.cause}, {cell.phase}, {cell.transport}")
        rounds = -(-self.n // STREAMS_AT_SHUTDOWN)
        for _ in range(rounds):
            try:
                async with sites.site_arena(Site.DRAINING, self.upstream) as arena:
                    log = Log(arena.server)
                    streams = min(self.n, STREAMS_AT_SHUTDOWN)
                    for record in await shutdown_runs(arena, log, cell, streams):
                        self.emit(record)
            except FAILURES as exc:
                self.emit(unmade(cell, Status.ERROR, str(exc)))

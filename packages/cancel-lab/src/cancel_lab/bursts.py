"""The burst runs: sizes rising, servers interleaved, repeated."""

from __future__ import annotations

from collections.abc import Sequence

from cancel_lab.adapters.adapter import Adapter
from cancel_lab.experiments.burst import burst, raise_file_limit
from cancel_lab.probe import arenas_of, installed, interleaved, skipped
from cancel_lab.progress import Progress
from cancel_lab.records import Emit
from cancel_lab.trial import Arena, TrialError
from cancel_lab.upstream import Upstream

SIZES = (1, 10, 100, 500, 1000, 2000)


async def bursts(
    adapters: Sequence[Adapter],
    upstream: Upstream,
    emit: Emit,
    *,
    sizes: Sequence[int] = SIZES,
    repeats: int = 3,
) -> None:
    """Run every size on every server; a server that fails a size gets no larger one."""
    raise_file_limit(max(sizes))
    able = installed(adapters, emit, "burst")
    async with arenas_of(able, upstream, emit, "burst") as arenas:
        with Progress("burst", len(sizes) * repeats * len(arenas)) as progress:
            for size in sizes:
                await _size(arenas, size, repeats, emit, progress)


async def _size(
    arenas: list[Arena], size: int, repeats: int, emit: Emit, progress: Progress
) -> None:
    for _, arena in list(interleaved(list(arenas), repeats)):
        progress.advance(f"{arena.adapter.name}, {size} streams")
        if arena not in arenas:
            continue
        try:
            emit(await burst(arena, size))
        except (TrialError, OSError) as exc:
            emit(skipped(arena.adapter, f"{size} streams: {exc}", "burst"))
            arenas.remove(arena)

"""The probe: every experiment on every server, interleaved so that none is favoured.

Order within a round is ABBA: each server runs as often before as after each other, so a
machine that slows down or speeds up meanwhile does so for all alike. The first rounds
are warm-up and thrown away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from cancel_lab.adapters.adapter import Adapter
from cancel_lab.clients.acts import Act, Transport
from cancel_lab.experiments.notice import WITHIN_S, notice
from cancel_lab.experiments.recovery import recovery
from cancel_lab.experiments.shutdown import shutdown
from cancel_lab.experiments.stalled import stalled
from cancel_lab.placement import on_server_cores
from cancel_lab.process import ServerError, free_port, serving
from cancel_lab.procfs import open_files
from cancel_lab.progress import Progress
from cancel_lab.records import RunRecord, Status
from cancel_lab.scenes import FIRST_TOKEN, HEADERS, MARK, STREAM, Scene
from cancel_lab.trial import Arena, TrialError, sut
from cancel_lab.upstream import Upstream

Emit = Callable[[RunRecord], None]
PHASES = (HEADERS, FIRST_TOKEN, STREAM)
EXPERIMENTS = ("notice", "stalled", "shutdown")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of what is run; the manifest repeats it."""

    n: int = 30
    warm_up: int = 2
    acts: tuple[Act, ...] = (Act.FIN,)
    phases: tuple[Scene, ...] = PHASES
    experiments: tuple[str, ...] = EXPERIMENTS
    within_s: float = WITHIN_S
    stalled_for_s: float = 20.0
    shutdown_for_s: float = 40.0
    streams_at_shutdown: int = 5

    def as_json(self) -> dict[str, object]:
        """Return it for the manifest; of a phase its name and its script."""
        phases = {scene.name: scene.script for scene in self.phases}
        return dataclasses.asdict(self) | {"phases": phases}


def interleaved(names: Sequence[Arena], rounds: int) -> Iterator[tuple[int, Arena]]:
    """Yield round and server: forwards in even rounds, backwards in odd ones."""
    for number in range(rounds):
        order = names if number % 2 == 0 else list(reversed(names))
        for name in order:
            yield number, name


@asynccontextmanager
async def arena_of(adapter: Adapter, upstream: Upstream) -> AsyncIterator[Arena]:
    """Run a server against the simulator while the block runs; ServerError if not."""
    port = adapter.port or free_port()
    argv, env = adapter.command(port=port, upstream=upstream.base_url)
    within = adapter.ready_within_s
    argv = on_server_cores(argv)
    async with serving(argv, env, port=port, ready_within_s=within) as server:
        yield Arena(adapter, server, upstream)


def skipped(adapter: Adapter, reason: str, experiment: str = "notice") -> RunRecord:
    """Return the record of a server that could not be measured."""
    return RunRecord(
        run_id=f"skipped-{adapter.name}-{experiment}",
        tier="probe",
        experiment=experiment,
        sut=sut(adapter),
        cause="any",
        phase="any",
        transport="any",
        status=Status.SKIPPED,
        reason=reason,
    )


async def probe(
    adapters: Sequence[Adapter], upstream: Upstream, plan: Plan, emit: Emit
) -> None:
    """Run the plan on all servers and emit each record as it is made.

    A server that is not installed or does not start is recorded as skipped, with the
    reason. Cancellation: all children are ended.
    """
    able = []
    for adapter in adapters:
        if (reason := adapter.missing()) is not None:
            emit(skipped(adapter, reason))
        else:
            able.append(adapter)
    if "notice" in plan.experiments:
        await _notices(able, upstream, plan, emit)
    for adapter in able:
        await _alone(adapter, upstream, plan, emit)


async def _notices(
    adapters: Sequence[Adapter], upstream: Upstream, plan: Plan, emit: Emit
) -> None:
    async with AsyncExitStack() as stack:
        arenas = []
        for adapter in adapters:
            try:
                arena = await stack.enter_async_context(arena_of(adapter, upstream))
            except (ServerError, OSError) as exc:
                emit(skipped(adapter, f"did not start: {exc}"))
                continue
            arenas.append(arena)
        arenas = [arena for arena in arenas if await _fit(arena, emit)]
        baselines = {
            arena.adapter.name: open_files(arena.server.pid) for arena in arenas
        }
        rounds = plan.warm_up + plan.n
        cells = [(scene, act) for scene in plan.phases for act in plan.acts]
        with Progress("notice", len(cells) * rounds * len(arenas)) as progress:
            for scene, act in cells:
                for number, arena in interleaved(arenas, rounds):
                    record = await notice(arena, scene, act, within_s=plan.within_s)
                    progress.advance(f"{arena.adapter.name}, {scene.name}")
                    if number >= plan.warm_up:
                        emit(record)
        for arena in arenas:
            emit(await recovery(arena, baseline=baselines[arena.adapter.name]))


async def _fit(arena: Arena, emit: Emit) -> bool:
    """See that a server can be measured; say why not. Its first request is this one."""
    since = await arena.upstream.newest()
    first = await recovery(arena)
    asked = (await arena.upstream.stats(since)).requests
    reason = None
    if not asked:
        reason = (
            "expected it to ask the simulator, but no request came: --upstream-env"
            " names the variable that gets the simulator's base URL"
        )
    elif MARK not in (asked[-1].model or ""):
        reason = (
            "expected it to hand the model of the request on to upstream, but it asked"
            f" for {asked[-1].model!r}: it chooses its own, so no phase can be scripted"
        )
    elif first.status is not Status.PASS:
        reason = first.violations[0]
    if reason is not None:
        emit(skipped(arena.adapter, reason))
    return reason is None


async def _alone(adapter: Adapter, upstream: Upstream, plan: Plan, emit: Emit) -> None:
    """Run the experiments that may leave a server unwell, each on a fresh one."""
    transports = [t for t in (Transport.H1, Transport.H2C) if t in adapter.transports]
    if "stalled" in plan.experiments:
        for transport in transports:
            await _guarded(adapter, "stalled", emit, upstream, plan, transport)
    if "shutdown" in plan.experiments:
        await _guarded(adapter, "shutdown", emit, upstream, plan, Transport.H1)


async def _guarded(
    adapter: Adapter,
    experiment: str,
    emit: Emit,
    upstream: Upstream,
    plan: Plan,
    transport: Transport,
) -> None:
    with Progress(f"{experiment}: {adapter.name}, {transport}", None):
        try:
            async with arena_of(adapter, upstream) as arena:
                if experiment == "stalled":
                    emit(await stalled(
                        arena, transport=transport, for_s=plan.stalled_for_s
                    ))  # fmt: skip
                    return
                for record in await shutdown(
                    arena,
                    streams=plan.streams_at_shutdown,
                    for_s=plan.shutdown_for_s,
                ):
                    emit(record)
        except (ServerError, TrialError, OSError) as exc:
            emit(skipped(adapter, str(exc), experiment))

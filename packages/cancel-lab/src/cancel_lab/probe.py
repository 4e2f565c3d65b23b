"""The probe: every experiment on every server, interleaved so that none is favoured.

Order within a round is ABBA: each server runs as often before as after each other, so a
machine that slows down or speeds up meanwhile does so for all alike. The first rounds
are warm-up and thrown away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from cancel_lab.adapters import install
from cancel_lab.adapters.adapter import Adapter
from cancel_lab.clients.acts import Act, Transport
from cancel_lab.experiments.notice import WATCH_S, WITHIN_S, notice
from cancel_lab.experiments.recovery import recovery
from cancel_lab.experiments.shutdown import shutdown
from cancel_lab.experiments.stalled import stalled
from cancel_lab.experiments.vanished import vanished
from cancel_lab.network import LOSSY, SLOW, WHOLE, Quality, degrade
from cancel_lab.placement import on_server_cores
from cancel_lab.process import ServerError, free_port, serving
from cancel_lab.procfs import open_files
from cancel_lab.progress import Progress
from cancel_lab.records import Emit, RunRecord, Status
from cancel_lab.scenes import FIRST_TOKEN, HEADERS, MARK, STREAM, Scene
from cancel_lab.trial import Arena, TrialError, sut
from cancel_lab.upstream import Upstream

PHASES = (HEADERS, FIRST_TOKEN, STREAM)
EXPERIMENTS = ("notice", "stalled", "shutdown")
IN_A_NETWORK = ("lossy", "vanished")  # need a network namespace of their own
QUALITIES = (LOSSY, SLOW)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of what is run; the manifest repeats it."""

    n: int = 30
    warm_up: int = 2
    acts: tuple[Act, ...] = (Act.FIN,)
    phases: tuple[Scene, ...] = PHASES
    experiments: tuple[str, ...] = EXPERIMENTS
    within_s: float = WITHIN_S
    watch_s: float = WATCH_S
    stalled_for_s: float = 20.0
    shutdown_for_s: float = 40.0
    streams_at_shutdown: int = 5
    vanished_for_s: float = 40.0

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
        yield Arena(adapter.before(upstream.base_url), server, upstream)


def skipped(adapter: Adapter, reason: str, experiment: str = "notice") -> RunRecord:
    """Return the record of a server that could not be measured.

    A record may be published, so where this machine keeps its servers is left out.
    """
    return RunRecord(
        run_id=f"skipped-{adapter.name}-{experiment}",
        tier="probe",
        experiment=experiment,
        sut=sut(adapter),
        cause="any",
        phase="any",
        transport="any",
        status=Status.SKIPPED,
        reason=reason.replace(str(install.home("")), "LAB_SERVERS"),
    )


async def probe(
    adapters: Sequence[Adapter], upstream: Upstream, plan: Plan, emit: Emit
) -> None:
    """Run the plan on all servers and emit each record as it is made.

    A server that is not installed or does not start is recorded as skipped, with the
    reason. Cancellation: all children are ended.
    """
    able = installed(adapters, emit)
    if "notice" in plan.experiments:
        cells = [(WHOLE, scene, act) for scene in plan.phases for act in plan.acts]
        await _notices(able, upstream, plan, emit, cells)
    if "lossy" in plan.experiments:
        cells = [(quality, STREAM, Act.FIN) for quality in QUALITIES]
        await _notices(able, upstream, plan, emit, cells)
    if "shutdown" in plan.experiments:
        await _shutdowns(able, upstream, plan, emit)
    if "stalled" in plan.experiments:
        for adapter in able:
            for transport in (Transport.H1, Transport.H2C):
                if transport in adapter.transports:
                    await _stalled(adapter, emit, upstream, plan, transport)
    if "vanished" in plan.experiments:
        async with arenas_of(able, upstream, emit, "vanished") as arenas:
            for_s = plan.vanished_for_s
            with Progress(f"vanished: {len(arenas)} servers at once", None):
                for record in await vanished(arenas, for_s=for_s):
                    emit(record)


def installed(
    adapters: Sequence[Adapter], emit: Emit, experiment: str = "notice"
) -> list[Adapter]:
    """Return the servers that can be started here; of each other one say why not."""
    able = []
    for adapter in adapters:
        if (reason := adapter.missing()) is not None:
            emit(skipped(adapter, reason, experiment))
        else:
            able.append(adapter)
    return able


@asynccontextmanager
async def arenas_of(
    adapters: Sequence[Adapter], upstream: Upstream, emit: Emit, experiment: str
) -> AsyncIterator[list[Arena]]:
    """Run all servers that can be measured; of each other one say why it cannot."""
    async with AsyncExitStack() as stack:
        arenas = []
        for adapter in adapters:
            try:
                arena = await stack.enter_async_context(arena_of(adapter, upstream))
            except (ServerError, OSError) as exc:
                emit(skipped(adapter, f"did not start: {exc}", experiment))
                continue
            arenas.append(arena)
        yield [arena for arena in arenas if await _fit(arena, emit, experiment)]


async def _notices(
    adapters: Sequence[Adapter],
    upstream: Upstream,
    plan: Plan,
    emit: Emit,
    cells: Sequence[tuple[Quality, Scene, Act]],
) -> None:
    experiment = "notice" if cells[0][0] is WHOLE else "lossy"
    async with arenas_of(adapters, upstream, emit, experiment) as arenas:
        baselines = {
            arena.adapter.name: open_files(arena.server.pid) for arena in arenas
        }
        rounds = plan.warm_up + plan.n
        ports = [arena.server.port for arena in arenas]
        with Progress(experiment, len(cells) * rounds * len(arenas)) as progress:
            for quality, scene, act in cells:
                if quality is not WHOLE:
                    degrade(quality, ports)
                for number, arena in interleaved(arenas, rounds):
                    record = await notice(
                        arena, scene, act, watch_s=plan.watch_s,
                        within_s=plan.within_s, variant=quality.name,
                    )  # fmt: skip
                    progress.advance(f"{arena.adapter.name}, {scene.name}")
                    if number >= plan.warm_up:
                        emit(record)
        if experiment == "lossy":
            degrade(WHOLE, ports)
            return
        for arena in arenas:
            emit(await recovery(arena, baseline=baselines[arena.adapter.name]))


async def _fit(arena: Arena, emit: Emit, experiment: str) -> bool:
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
        emit(skipped(arena.adapter, reason, experiment))
    return reason is None


async def _stalled(
    adapter: Adapter,
    emit: Emit,
    upstream: Upstream,
    plan: Plan,
    transport: Transport,
) -> None:
    """Let a client of a fresh server, which it may leave unwell, stop reading."""
    with Progress(f"stalled: {adapter.name}, {transport}", None):
        try:
            async with arena_of(adapter, upstream) as arena:
                for_s = plan.stalled_for_s
                emit(await stalled(arena, transport=transport, for_s=for_s))
        except (ServerError, TrialError, OSError) as exc:
            emit(skipped(adapter, str(exc), "stalled"))


async def _shutdowns(
    adapters: Sequence[Adapter], upstream: Upstream, plan: Plan, emit: Emit
) -> None:
    """End all servers at once, each under some streams: seconds are what is timed."""

    async def one(arena: Arena) -> None:
        try:
            streams, for_s = plan.streams_at_shutdown, plan.shutdown_for_s
            for record in await shutdown(arena, streams=streams, for_s=for_s):
                emit(record)
        except (TrialError, OSError) as exc:
            emit(skipped(arena.adapter, str(exc), "shutdown"))

    async with arenas_of(adapters, upstream, emit, "shutdown") as arenas:
        with Progress(f"shutdown: {len(arenas)} servers at once", None):
            async with trio.open_nursery() as nursery:
                for arena in arenas:
                    nursery.start_soon(one, arena)

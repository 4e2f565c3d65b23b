"""The world of one run: the real application, upstream and clients, all in memory.

The server stands in a nursery of its own, as under Hypercorn: first the lifespan, then
one task for each request. Upstream and the network are outside it, because they see
what a dying server leaves behind.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

import trio
import trio.testing

from tests.sweep.causes import Met
from tests.sweep.client import Client
from tests.sweep.network import Network
from tests.sweep.proxied import (
    Unheld,
    answer_connect,
    refuse_early,
    use_proxy,
)
from tests.sweep.scenario import PATHS, RICH, TARGET, Scenario
from tests.sweep.sighting import (
    Sighting,
    carriers_in_use,
    counts_of,
    sight,
    tasks_of_server,
)
from tests.sweep.sockets import dialled_by, use_sockets
from tests.sweep.stage import application, ledger_of
from tests.sweep.wire import Wire
from trio_ai_stream.http.application import Application
from trio_ai_stream.simulator.ledger import Ledger
from trio_ai_stream.simulator.simulator import Simulator
from trio_ai_stream.stream.registry import Registry
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.record import Record

if TYPE_CHECKING:
    from tests.sweep.valkey import MemoryValkey

QUICK: Final = "simulator/fast?chunks=1"


class World:
    """Everything that one run needs; `serving` is around the request that is swept."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.boundary = -1  # the last one
        self.records: list[Record] = []
        self.met: list[Met] = []
        self.budgets: tuple[int, dict[str, trio.CancelScope]] = (-2, {})  # and when
        self.stream: Stream | None = None
        self.held = self.held_at_end = False  # an answer, when the ending was decided
        self.client = self._target()
        self.neighbour: Client | None = None
        self.began_at = 0.0
        self.ended_at: float | None = None
        self.ended_at_tick: int | None = None  # when its ending was decided
        self.decided_at: float | None = None
        self.later: tuple[float, Callable[[], object]] | None = None
        self.sighting: Sighting | None = None
        self.tasks_before: Counter[str] = Counter()
        self.counts_before: Counter[tuple[str, ...]] = Counter()
        self.after: Client | None = None  # the request itself, once more
        self.health: Client | None = None
        self.escaped: list[BaseException] = []
        self.valkey: MemoryValkey | None = None
        self.counted_last = 0  # streams that Valkey counted before the shutdown
        self.billed: list[str] | None = None  # the requests that the ledger has
        self.dials = 0
        self.left_open = 0  # connections that the server held after its shutdown
        self.server_scope: trio.CancelScope
        self.network: Network
        self.app: Application
        self._requests: trio.Nursery
        self._simulator = Simulator(ledger=Ledger(now_ns=lambda: 0))
        self._begun = trio.Event()
        self._shutdown = trio.Event()
        self._requests_over = trio.Event()
        self._stopped = trio.Event()

    def tick(self) -> int:
        """Return the number of the boundary that comes next."""
        return self.boundary + 1

    @property
    def registry(self) -> Registry:
        """The live streams of the server."""
        return self.app.services.registry

    @property
    def ledger(self) -> Ledger:
        """What upstream has seen."""
        return self._simulator.ledger

    def look_for_stream(self) -> Stream | None:
        """Return the swept stream, once there is one; it stays known when it ended."""
        if self.stream is None:
            self.stream = self.registry.get(TARGET)
        return self.stream

    def wires_of_target(self) -> list[Wire]:
        """Return the open connections that carry the swept stream's request."""
        return [wire for wire in self.network.live_wires() if wire.owner == TARGET]

    def observe(self) -> str | None:
        """Look at the stream, at every boundary of its request."""
        self.boundary += 1
        stream = self.look_for_stream()
        if stream is None or stream.ending is None:
            self.held = stream is not None and stream.response is not None
            return None
        if self.ended_at_tick is None:
            self.ended_at_tick = self.boundary
            self.decided_at = trio.current_time()
            self.held_at_end = self.held and not self.acted_upstream()
        if stream.completed:
            return None
        if stream.response is not None:
            return "I1 upstream closed: its answer is held after the ending"
        if self.scenario.unheld:
            return None
        serving = carriers_in_use(self)
        if any(wire.carrier in serving for wire in self.wires_of_target()):
            return "I1 upstream closed: a connection is open after the ending"
        return None

    def acted_upstream(self) -> bool:
        """Whether upstream's side of the connection was acted upon."""
        return any(met.cause.upstream for met in self.met)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[World]:
        """Serve around a body; afterwards shut the server down, and count."""
        with contextlib.ExitStack() as dialled:
            async with trio.open_nursery() as outside:
                self.network = Network(
                    outside,
                    self._serve_upstream,
                    self.tick,
                    connect_s=self.scenario.connect_s,
                )
                if self.scenario.sockets:
                    tls = self.scenario.sockets == "tls"
                    dialled.enter_context(dialled_by(self.network, tls=tls))
                self.app = application(self.scenario, self.network, self.records.append)
                self.counts_before = counts_of(self.app.services.metrics)
                if self.scenario.valkey:
                    self.valkey = self._share(outside)
                await outside.start(self._serve)
                self._reach_upstream_otherwise()
                await self._warm_up()
                self._requests.start_soon(self._accompany)
                await trio.testing.wait_all_tasks_blocked()
                self.tasks_before = tasks_of_server()
                yield self
                self._shutdown.set()
                await self._stopped.wait()
                self.billed = ledger_of(self.app) if self.scenario.ledger else None
                self.dials = len(self.network.dials)
                self.left_open = len(self.network.live_wires())
                outside.cancel_scope.cancel(reason="the run is over")

    def _reach_upstream_otherwise(self) -> None:
        scenario, upstream = self.scenario, self.app.services.upstream
        assert upstream is not None
        if scenario.sockets:
            use_sockets(upstream)
        if scenario.proxy is not None:
            use_proxy(upstream)
        if scenario.unheld:
            self.app.services.upstream = Unheld(upstream)  # type: ignore[assignment]

    async def _serve_upstream(self, wire: Wire) -> None:
        """Be upstream, behind its proxy, for one connection."""
        proxy = self.scenario.proxy
        if proxy is None or await answer_connect(wire.far, proxy):
            early = self.scenario.early
            await wire.serve(refuse_early if early else self._simulator.handle)

    async def serve_target(self) -> None:
        """Make the request that is swept: the body of the program."""
        self._begun.set()
        if self.valkey is not None:
            self.valkey.silent_at = self.scenario.silent_at
        self.began_at = trio.current_time()
        try:
            await self.client.run(self.app)
        finally:
            self.ended_at = trio.current_time()

    async def look_and_ask_again(self) -> None:
        """Look around when all is quiet; then see whether the server still serves."""
        if self.neighbour is not None:
            await self.neighbour.wait_finished()
        await trio.testing.wait_all_tasks_blocked()
        self.sighting = sight(self)
        if self._requests_over.is_set():
            return
        own = self.scenario.repeated
        self.after = self._target("after") if own else self._plain("after", QUICK)
        await self._exchange(self.after)
        self.health = Client("health", "/health", method="GET", tick=self.tick)
        await self._exchange(self.health)
        if self.valkey is not None and not self._requests_over.is_set():
            await self._wait_until_shared()
            self.counted_last = self.valkey.counts.counted()

    async def _accompany(self) -> None:
        """Do what the scenario wants beside the request that is swept."""
        await self._begun.wait()
        if self.scenario.neighbour:
            self.neighbour = self._plain("neighbour", self.scenario.neighbour)
            self._requests.start_soon(self.neighbour.run, self.app, name="neighbour")
        if self.later is not None:
            await trio.sleep(self.later[0])
            if self.ended_at is None:
                self.later[1]()
        if self.scenario.leaves_after_s is not None:
            with trio.move_on_after(self.scenario.leaves_after_s):
                await self.client.wait_finished()
            self.client.disconnect()

    def _share(self, outside: trio.Nursery) -> MemoryValkey:
        """Let the application's limits be counted in a Valkey of its own, in memory."""
        from tests.sweep.valkey import MemoryValkey
        from trio_ai_stream.admission.shared.shared_gate import SharedGate

        kind = self.scenario.valkey
        valkey = MemoryValkey(
            outside,
            delay_s=0.05 if kind == "slow" else 0.0,
            loses=TARGET if kind == "lost" else "",
            refuses=kind == "refused",
        )
        gate = self.app.services.gate
        assert isinstance(gate, SharedGate)
        gate.link.open_client = valkey.open_client
        return valkey

    def shared(self) -> bool:
        """Whether the server reaches its Valkey now."""
        return self.app.services.gate.status().mode == "shared"

    async def _wait_until_shared(self) -> None:
        await trio.sleep(2)  # of a mock clock: a lost one is found, a slow one answers
        await trio.testing.wait_all_tasks_blocked()

    def _target(self, name: str = TARGET) -> Client:
        scenario = self.scenario
        if scenario.shape == "other":
            return Client(name, scenario.path, method="GET", tick=self.tick)
        return Client(
            name,
            PATHS[scenario.shape],
            scenario.body(),
            read_every_s=scenario.read_every_s,
            origin=scenario.origin,
            key=scenario.key,
            pieces=scenario.pieces,
            piece_every_s=scenario.piece_every_s,
            reports_disconnect=scenario.reports_disconnect,
            tick=self.tick,
        )

    def _plain(self, name: str, upstream: str) -> Client:
        body: dict[str, object] = {"prompt": "hello", "model": upstream}
        key = RICH if self.scenario.key else ""
        return Client(name, PATHS["chat"], body, key=key, tick=self.tick)

    async def _serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the lifespan and, inside it, the requests: Hypercorn's order."""
        try:
            async with trio.open_nursery() as services:
                await services.start(self._lifespan)
                async with trio.open_nursery() as requests:
                    self._requests = requests
                    self.server_scope = requests.cancel_scope
                    task_status.started()
                    await self._shutdown.wait()
                self._requests_over.set()
        except BaseExceptionGroup as exc:
            self.escaped.append(exc)
            cancelled = exc.subgroup(trio.Cancelled)
            if cancelled is not None:
                raise cancelled from None
        finally:
            self._stopped.set()

    async def _lifespan(self, *, task_status: trio.TaskStatus[None]) -> None:
        messages = [{"type": "lifespan.startup"}]

        async def receive() -> dict[str, str]:
            await trio.lowlevel.checkpoint()
            if messages:
                return messages.pop()
            await self._requests_over.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "lifespan.startup.complete":
                task_status.started()
            elif message["type"] != "lifespan.shutdown.complete":
                raise RuntimeError(f"lifespan: {message}")

        scope: Any = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        await self.app(scope, receive, send)

    async def _exchange(self, client: Client) -> None:
        """Make a request and wait for its end."""
        self._requests.start_soon(client.run, self.app, name=client.name)
        await client.wait_finished()

    async def _warm_up(self) -> None:
        for number in range(self.scenario.warm):
            before = self._plain(f"before{number}", self.scenario.before)
            await self._exchange(before)

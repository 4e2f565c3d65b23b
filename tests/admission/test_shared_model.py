"""A model of the shared permits: what Valkey counts is what lives, always."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import coredis
import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.admission.gates import until
from tests.admission.valkey import Proxy, Server, proxied
from trio_ai_stream.admission.gate import Permit, Quota, StreamPermits
from trio_ai_stream.admission.shared import valkey_link
from trio_ai_stream.admission.shared.shared_gate import SharedGate
from trio_ai_stream.telemetry.metrics import Metrics

T = TypeVar("T")

LIMIT = 12
GATES = st.integers(0, 1)
CLIENTS = st.sampled_from(["ann", "bob"])
NUMBERS = st.integers(1, 6)


class Host:
    """One gate behind its own proxy, and the permits that its streams hold."""

    def __init__(self, gate: SharedGate, proxy: Proxy) -> None:
        self.gate = gate
        self.proxy = proxy
        self.scope = trio.CancelScope()
        self.held: list[Permit] = []

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.gate.run)
                task_status.started()

    async def stream(self, client: str, name: str, cancel_after: int = -1) -> None:
        """Ask for a permit and keep it; the request may be cancelled meanwhile."""
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                if cancel_after >= 0:
                    nursery.start_soon(_cancel_after, scope, cancel_after)
                answer = await self.gate.acquire_stream(client, name)
                if isinstance(answer, Permit):
                    self.held.append(answer)
                nursery.cancel_scope.cancel(reason="asked")


async def _cancel_after(scope: trio.CancelScope, steps: int) -> None:
    await trio.sleep(steps * 40e-6)  # a round trip takes ten to twenty of them
    scope.cancel(reason="its client left")


class World:
    """Two hosts and one Valkey, in a Trio loop of its own thread."""

    def __init__(self, url: str, server: Server) -> None:
        self._server = server
        self._url = url
        self._prefix = uuid.uuid4().hex
        self._stop = trio.Event()
        self._ready = threading.Event()
        self._names = iter(range(10**6))
        self.hosts: list[Host] = []
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._thread.start()
        assert self._ready.wait(10)

    def call(self, act: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run one act in the loop, within ten seconds."""

        async def bounded() -> T:
            with trio.fail_after(30):
                return await act(*args)

        return trio.from_thread.run(bounded, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join(10)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with AsyncExitStack() as stack:
            self._nursery = await stack.enter_async_context(trio.open_nursery())
            self._client = coredis.Redis.from_url(self._url)
            await stack.enter_async_context(self._client)
            for _ in range(2):
                proxy = await stack.enter_async_context(proxied(self._server))
                self.hosts.append(await self._host(proxy))
            self._ready.set()
            await self._stop.wait()
            self._nursery.cancel_scope.cancel(reason="the example is over")

    async def _host(self, proxy: Proxy) -> Host:
        gate = SharedGate(
            proxy.url,
            Quota(1000, 1000),
            StreamPermits(LIMIT, LIMIT - 2),
            Metrics(version="1", upstream="simulator"),
            prefix=self._prefix,
            lease_s=90.0,  # no heartbeat puts anything right within an example
            timeout_s=0.3,
        )
        host = Host(gate, proxy)
        await self._nursery.start(host.run)
        return host

    def name(self) -> str:
        return f"r{next(self._names)}"

    async def start(self, at: int, client: str, count: int) -> None:
        """Ask for some permits at once."""
        host = self.hosts[at]
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(host.stream, client, self.name())

    async def end(self, at: int, count: int) -> None:
        """End some streams at once."""
        host = self.hosts[at]
        for permit in host.held[:count]:
            permit.release()
        del host.held[:count]

    async def churn(self, at: int, client: str, count: int, cancel_after: int) -> None:
        """End some streams while others ask, and some of those are cancelled."""
        host = self.hosts[at]
        async with trio.open_nursery() as nursery:
            for number in range(count):
                if host.held:
                    ended = host.held.pop()
                    ended.release()
                    # A client may use the id of its last request again.
                    name = ended.request_id if number % 2 else self.name()
                else:
                    name = self.name()
                after = cancel_after if number % 3 else -1
                nursery.start_soon(host.stream, client, name, after)
                for _ in range(number):
                    await trio.lowlevel.checkpoint()

    async def lose(self, at: int, client: str, count: int, silent: bool) -> None:
        """Lose the link while streams end and ask; then let it come back."""
        host = self.hosts[at]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.churn, at, client, count, 3)
            if silent:
                host.proxy.silent = True
            else:
                host.proxy.cut()
        await self.end(at, 1)
        host.proxy.silent = False
        if silent:  # what was swallowed is noticed by who waits for it
            await host.gate.admit_request(self.name())
        await until(lambda: host.gate.link.up)

    async def kill(self, at: int) -> None:
        """End a host without a goodbye, its lease at once; start another."""
        host = self.hosts[at]
        host.scope.cancel(reason="killed")
        key, dead = host.gate.keys.permits[0], host.gate.keys.process
        await self._client.zadd(key, {dead: 1.0})
        self.hosts[at] = await self._host(host.proxy)
        # Whoever comes next takes over what the dead one held.
        await self.start(at, "ann", 1)

    async def forget(self) -> None:
        """Let Valkey lose everything; the next to ask finds out."""
        await self._client.delete([f"{{{self._prefix}}}:streams"])
        for host in self.hosts:
            await self._client.delete(host.gate.keys.permits)
        for at in (0, 1):
            await self.start(at, "bob", 1)
            await self.end(at, 1)

    async def evict(self, at: int, number: int) -> None:
        """Let Valkey lose one key; the next to ask finds out."""
        await self._client.delete([self.hosts[at].gate.keys.permits[number]])
        for each in (0, 1):
            await self.start(each, "bob", 1)
            await self.end(each, 1)

    async def check(self) -> None:
        """What Valkey counts is what lives, once it has heard of the last change."""
        gates = [host.gate for host in self.hosts]
        await until(lambda: all(g.link.up and g.leases.settled for g in gates))
        _, streams, clients, _ = gates[0].keys.permits
        live = [permit for host in self.hosts for permit in host.held]
        assert await self._client.hlen(streams) == len(live)
        by_client = await self._client.hgetall(clients)
        counted = {name.decode(): int(number) for name, number in by_client.items()}
        assert sum(counted.values()) == len(live)
        for host in self.hosts:
            members = await self._client.scard(host.gate.keys.permits[3])
            # The empty one is the key's own.
            assert members - 1 == len(host.held) == len(host.gate.leases)
            assert host.gate.status().held == len(host.held)


class Permits(RuleBasedStateMachine):
    """The rules, each of which leaves the count right."""

    server: Server
    world: World

    @initialize()
    def begin(self) -> None:
        self.world = World(self.server.url, self.server)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()

    @rule(at=GATES, client=CLIENTS, count=NUMBERS)
    def start(self, at: int, client: str, count: int) -> None:
        self.world.call(self.world.start, at, client, count)

    @rule(at=GATES, count=NUMBERS)
    def end(self, at: int, count: int) -> None:
        self.world.call(self.world.end, at, count)

    @rule(at=GATES, client=CLIENTS, count=NUMBERS, cancel_after=st.integers(0, 30))
    def churn(self, at: int, client: str, count: int, cancel_after: int) -> None:
        self.world.call(self.world.churn, at, client, count, cancel_after)

    @rule(at=GATES, client=CLIENTS, count=NUMBERS, silent=st.booleans())
    def lose(self, at: int, client: str, count: int, silent: bool) -> None:
        self.world.call(self.world.lose, at, client, count, silent)

    @rule(at=GATES)
    def kill(self, at: int) -> None:
        self.world.call(self.world.kill, at)

    @rule()
    def forget(self) -> None:
        self.world.call(self.world.forget)

    @rule(at=GATES, number=st.integers(0, 3))
    def evict(self, at: int, number: int) -> None:
        self.world.call(self.world.evict, at, number)

    @invariant()
    def count_is_right(self) -> None:
        if hasattr(self, "world"):
            self.world.call(self.world.check)


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a link that was lost be tried again after milliseconds."""
    monkeypatch.setattr(valkey_link, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(valkey_link, "LONGEST_PAUSE_S", 0.02)


@pytest.mark.usefixtures("quick_probes")
def test_valkey_counts_what_lives(valkey: Server) -> None:
    """Ends, cancels, lost links, a lost memory or key, takeovers leave the count exact.

    Heartbeats are too rare to help: it is right within a round trip.
    """

    class Machine(Permits):
        server = valkey

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=12,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Valkey slow, gone, full or cut off: bounded waits, the policy, and the way back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
import trio

from cancel_lab.process import free_port
from tests.admission.gates import GateMaker, connected, granted, until, until_async
from tests.admission.valkey import BINARIES, Server, proxied, running, tls_redis
from trio_ai_stream.admission.gate import Permit, PermitRefusal, Quota, StreamPermits
from trio_ai_stream.admission.shared.valkey_link import Unavailable, ValkeyLink
from trio_ai_stream.admission.shared.valkey_scripts import ADMIT
from trio_ai_stream.telemetry.log_rendering import MASK, forget_secrets

Log = Callable[[str], list[dict[str, object]]]


async def test_a_partition_costs_one_timeout_and_then_nothing(
    valkey: Server, make_gate: GateMaker, log: Log
) -> None:
    """A server that accepts and never answers delays requests once, by the timeout.

    A process that looks late by half of it was busy, and does not judge the server: on
    a busy machine that happens, and the next request waits as well.
    """
    async with proxied(valkey) as proxy, trio.open_nursery() as nursery:
        gate = make_gate(proxy.url, timeout_s=0.5)
        await nursery.start(gate.run)
        proxy.silent = True
        waits = []
        for _ in range(5):
            began = trio.current_time()
            assert (await gate.admit_request("c")).allowed
            waits.append(trio.current_time() - began)
        *late, last = [wait for wait in waits if wait >= 0.5]
        assert waits[: len(late) + 1] == [*late, last]
        assert all(wait > 0.75 for wait in late)
        assert last < 5
        assert gate.status().mode == "fallback"
        proxy.silent = False
        await until(lambda: gate.link.up)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert [record["cause"] for record in log("gate_fallback")] == [
        "timeout: admit 0.5 s"
    ]
    assert len(log("gate_shared")) == 2


async def test_a_call_while_the_connection_closes_finds_it_lost(valkey: Server) -> None:
    """Between a failure in the background and the pool's end a call is no bug of ours.

    It was answered with a 500: the pool that closes refuses with a `RuntimeError`.
    """
    fail = trio.Event()
    answers: list[object] = []

    async def run(_client: object, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await fail.wait()
        raise Unavailable("unavailable", "the test says so")

    async def call() -> None:
        try:
            answers.append(await link.call(ADMIT, ["a"], [1, 9]))
        except Unavailable as exc:
            answers.append(exc)

    link = ValkeyLink(valkey.url, timeout_s=5, on_change=lambda _reason: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run, [run])
        async with trio.open_nursery() as calls:
            fail.set()
            while link.up:
                calls.start_soon(call)
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert any(isinstance(answer, Unavailable) for answer in answers)


async def test_a_failure_of_a_lost_connection_does_not_end_the_next_one() -> None:
    """A call that fails late, when another connection is up, says nothing of that."""
    clients: list[SlowClient] = []

    def open_client() -> Any:
        clients.append(SlowClient())
        return clients[-1]

    async def call() -> None:
        with pytest.raises(Unavailable):
            await link.call(ADMIT, ["a"], [1, 9])

    link = ValkeyLink(
        "redis://127.0.0.1:1", timeout_s=5, on_change=lambda _reason: None
    )
    link.open_client = open_client
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run, [])
        async with trio.open_nursery() as calls:
            calls.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            link.late(trio.current_time(), "another call")
            await until(lambda: link.up and len(clients) == 2)
            clients[0].fail.set()
        assert link.up
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_the_error_of_a_queue_that_was_closed_is_an_outage() -> None:
    """coredis lets anyio's error through; it was answered with a 500 (chaos test)."""
    client = SlowClient(anyio.ClosedResourceError())
    client.fail.set()

    link = ValkeyLink(
        "redis://127.0.0.1:1", timeout_s=5, on_change=lambda _reason: None
    )
    link.open_client = lambda: client  # type: ignore[assignment,return-value]
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run, [])
        with pytest.raises(Unavailable, match="closed the connection"):
            await link.call(ADMIT, ["a"], [1, 9])
        assert not link.up
        nursery.cancel_scope.cancel(reason="the test is over")


class SlowClient:
    """A connection whose calls fail when the test says so."""

    def __init__(self, error: Exception | None = None) -> None:
        self.fail = trio.Event()
        self._error = error or OSError("the connection was lost")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return

    async def evalsha(self, *_args: object, **_options: object) -> None:
        await self.fail.wait()
        raise self._error


async def test_a_busy_process_does_not_blame_its_server(
    valkey: Server, make_gate: GateMaker, log: Log
) -> None:
    """A decision that comes late because our own loop was held keeps the link up."""
    async with trio.open_nursery() as nursery:
        gate = make_gate(valkey.url, timeout_s=0.5)
        await nursery.start(gate.run)
        async with trio.open_nursery() as requests:
            requests.start_soon(gate.admit_request, "c")
            await trio.lowlevel.checkpoint()
            time.sleep(1.0)  # noqa: ASYNC251 - the loop is held on purpose
        assert gate.link.up
        assert (await gate.admit_request("c")).allowed
        nursery.cancel_scope.cancel(reason="the test is over")
    assert log("gate_fallback") == []


async def test_a_late_publish_of_a_busy_process_keeps_the_link_up(
    own_valkey: Server, make_gate: GateMaker, log: Log
) -> None:
    """Its answer came while our loop was held; that says nothing of the server."""

    async def publish() -> None:
        with pytest.raises(Unavailable):
            await gate.link.publish("nobody", "listens")

    async with connected(own_valkey, make_gate, timeout_s=0.2, lease_s=60.0) as (
        gate,
        _,
    ):
        own_valkey.freeze()
        async with trio.open_nursery() as requests:
            requests.start_soon(publish)
            await trio.testing.wait_all_tasks_blocked()
            own_valkey.thaw()
            time.sleep(0.6)  # noqa: ASYNC251 - the loop is held on purpose
        assert gate.link.up
    assert log("gate_fallback") == []


async def test_a_permit_granted_too_late_for_us_goes_back(
    own_valkey: Server, make_gate: GateMaker
) -> None:
    """What Valkey granted while our loop was held is no stream, and is not counted."""
    options = {"timeout_s": 0.5, "lease_s": 60.0}
    async with connected(own_valkey, make_gate, **options) as (gate, client):
        found: list[Permit | PermitRefusal] = []
        streams = gate.keys.permits[1]
        # Valkey knows the script from here on: one round trip decides.
        (await granted(gate, "c", "first")).release()
        await until_async(lambda: client.hlen(streams), 0)

        async def acquire() -> None:
            found.append(await gate.acquire_stream("c", "r"))

        own_valkey.freeze()
        async with trio.open_nursery() as requests:
            requests.start_soon(acquire)
            await trio.testing.wait_all_tasks_blocked()
            own_valkey.thaw()
            time.sleep(1.0)  # noqa: ASYNC251 - the loop is held on purpose
        assert gate.link.up
        assert isinstance(found[0], Permit)
        found[0].release()
        await until_async(lambda: client.hlen(streams), 0)


async def test_all_who_wait_when_the_link_is_lost_wait_no_longer(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Decisions in flight together share one timeout."""
    async with proxied(valkey) as proxy, trio.open_nursery() as nursery:
        gate = make_gate(proxy.url, timeout_s=0.2)
        await nursery.start(gate.run)
        proxy.silent = True
        began = trio.current_time()
        async with trio.open_nursery() as requests:
            for number in range(50):
                requests.start_soon(gate.admit_request, f"c{number}")
        assert trio.current_time() - began < 5  # one by one: 10 s
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_restart_hurts_no_live_stream_and_loses_no_permit(
    own_valkey: Server, make_gate: GateMaker, log: Log
) -> None:
    """Permits outlive a server that comes back with nothing, and are in it again."""
    async with connected(own_valkey, make_gate) as (gate, client):
        before = await gate.acquire_stream("a", "before")
        gone = await gate.acquire_stream("a", "gone")
        own_valkey.stop()
        during = await gate.acquire_stream("a", "during")
        assert isinstance(before, Permit)
        assert isinstance(during, Permit)
        assert isinstance(gone, Permit)
        assert (await gate.admit_request("a")).allowed
        gone.release()
        assert gate.status().held == 2
        own_valkey.start()
        await until(lambda: gate.link.up)
        streams = gate.keys.permits[1]
        assert set(await client.hkeys(streams)) == {b"before", b"during"}
        before.release()
        during.release()
        await until_async(lambda: client.hlen(streams), 0)
    assert len(log("gate_fallback")) == 1
    assert len(log("gate_shared")) == 2


async def test_a_full_server_is_an_outage_until_it_has_room(
    own_valkey: Server, make_gate: GateMaker, log: Log
) -> None:
    """A server out of memory counts nothing: the policy decides, and says `full`."""
    async with connected(own_valkey, make_gate) as (gate, client):
        await client.config_set({"maxmemory": "1mb"})
        assert (await gate.admit_request("c")).allowed
        assert gate.status().mode == "fallback"
        (record,) = log("gate_fallback")
        assert str(record["cause"]).startswith("full: OOM")
        await client.config_set({"maxmemory": "0"})
        await until(lambda: gate.link.up)


async def test_a_server_that_was_never_there_delays_no_start(
    make_gate: GateMaker, log: Log
) -> None:
    """Without its Valkey a server starts, falls back and says so once."""
    async with trio.open_nursery() as nursery:
        gate = make_gate(f"redis://127.0.0.1:{free_port()}")
        with trio.fail_after(30):
            await nursery.start(gate.run)
        assert (await gate.admit_request("c")).allowed
        assert isinstance(await gate.acquire_stream("c", "r"), Permit)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert len(log("gate_fallback")) == 1


async def test_alone_a_process_keeps_to_its_share(
    own_valkey: Server, make_gate: GateMaker
) -> None:
    """Two processes without their Valkey hold the limit together, and each its half."""
    async with trio.open_nursery() as nursery:
        gates = [
            make_gate(own_valkey.url, permits=StreamPermits(4), lease_s=0.3)
            for _ in range(2)
        ]
        for gate in gates:
            await nursery.start(gate.run)
        await until(lambda: all(gate.leases.processes == 2 for gate in gates))
        own_valkey.stop()
        answers = [
            await g.acquire_stream("c", f"r{n}") for g in gates for n in range(3)
        ]
        kinds = [isinstance(answer, Permit) for answer in answers]
        assert kinds == [True, True, False] * 2
        assert answers[2] == PermitRefusal("server", 2, 1.0)
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize(("policy", "allowed"), [("open", True), ("closed", False)])
async def test_the_policy_decides_without_valkey(
    make_gate: GateMaker, policy: str, allowed: bool
) -> None:
    """`open` admits everything, `closed` refuses everything as unavailable.

    What is more than a client's rate is refused for that, so that `closed` can be told
    apart by who asks for no new stream.
    """
    async with trio.open_nursery() as nursery:
        gate = make_gate(
            f"redis://127.0.0.1:{free_port()}",
            policy=policy,
            quota=Quota(0.01, 3),
            permits=StreamPermits(1),
        )
        await nursery.start(gate.run)
        for number in range(3):
            decision = await gate.admit_request("c")
            assert decision.allowed is allowed
            assert decision.unavailable is not allowed
            permit = await gate.acquire_stream("c", f"r{number}")
            assert isinstance(permit, Permit) is allowed
            assert allowed or permit == PermitRefusal("gate", 0, 1.0)
        decision = await gate.admit_request("c")
        assert (decision.allowed, decision.unavailable) == (allowed, False)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_decision_that_failed_is_counted(
    own_valkey: Server, make_gate: GateMaker
) -> None:
    """The metrics say that limits are not shared, and why."""
    async with connected(own_valkey, make_gate) as (gate, _client):
        own_valkey.stop()
        await gate.admit_request("c")
        await until(lambda: not gate.link.up)
        body = gate._metrics.render()[1].decode()
        assert "trio_ai_stream_gate_fallback 1.0" in body
        # Whether it finds the connection broken, or nobody to connect to.
        assert re.search(r'gate_failures_total{kind="(unavailable|refused)"} 1.0', body)
        assert "trio_ai_stream_redis_lost_total 1.0" in body


async def test_the_password_is_used_and_never_logged(
    make_gate: GateMaker, log: Log
) -> None:
    """A password with reserved characters works; a wrong one is not in the log."""
    password = "p@ss/w:rd %41"
    forget_secrets()
    with running("valkey", "--requirepass", password) as server:
        right, wrong = "p%40ss%2Fw%3Ard%20%2541", "wr0ng-one"
        for spelling, mode in ((right, "shared"), (wrong, "fallback")):
            url = f"redis://:{spelling}@127.0.0.1:{server.port}"
            async with trio.open_nursery() as nursery:
                gate = make_gate(url)
                await nursery.start(gate.run)
                assert gate.status().mode == mode
                nursery.cancel_scope.cancel(reason="the test is over")
    (record,) = log("gate_fallback")
    assert wrong not in str(record)
    assert MASK not in str(record)
    forget_secrets()


@pytest.mark.skipif(BINARIES["redis"] is None, reason="no redis-server on this machine")
async def test_tls_is_verified(
    tmp_path: Path, make_gate: GateMaker, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """`rediss://` works with a certificate that is trusted, for the name it has."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with tls_redis(tmp_path, "localhost") as port:
        for host, mode in (("localhost", "shared"), ("127.0.0.1", "fallback")):
            async with trio.open_nursery() as nursery:
                gate = make_gate(f"rediss://{host}:{port}", timeout_s=2.0)
                await nursery.start(gate.run)
                assert gate.status().mode == mode
                nursery.cancel_scope.cancel(reason="the test is over")
    assert len(log("gate_fallback")) == 1

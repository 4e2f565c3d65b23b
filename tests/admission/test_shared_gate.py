"""The shared gate: one limit for all, whatever happens to its server."""

from __future__ import annotations

from time import monotonic

import pytest
import trio

from tests.admission.gates import (
    GateMaker,
    connected,
    evalsha_calls,
    granted,
    until,
    until_async,
)
from tests.admission.valkey import Server
from trio_ai_stream.admission.gate import Permit, PermitRefusal, Quota, StreamPermits
from trio_ai_stream.admission.shared.shared_gate import SharedGate


async def test_two_gates_admit_one_clients_rate_together(
    any_server: Server, make_gate: GateMaker
) -> None:
    """Two gates that are hammered admit one burst and what the rate adds, no more."""
    quota = Quota(rate=5, burst=20)
    decisions = []

    async def hammer(gate: SharedGate) -> None:
        for _ in range(60):
            decision = await gate.admit_request("ip:192.0.2.1")
            decisions.append(decision.allowed)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            gates = [make_gate(any_server.url, quota=quota) for _ in range(2)]
            for gate in gates:
                await nursery.start(gate.run)
            began = monotonic()
            async with trio.open_nursery() as hammers:
                for gate in gates * 2:
                    hammers.start_soon(hammer, gate)
            elapsed = monotonic() - began
            nursery.cancel_scope.cancel(reason="done")
    admitted = decisions.count(True)
    assert quota.burst <= admitted <= quota.burst + quota.rate * elapsed


async def test_a_refusal_tells_the_true_wait(
    valkey: Server, make_gate: GateMaker
) -> None:
    """After `retry_after_s` the client is admitted again, by any gate."""
    async with trio.open_nursery() as nursery:
        gates = [make_gate(valkey.url, quota=Quota(1, 1)) for _ in range(2)]
        for gate in gates:
            await nursery.start(gate.run)
        assert (await gates[0].admit_request("c")).allowed
        refused = await gates[1].admit_request("c")
        assert not refused.allowed
        assert 0 < refused.retry_after_s <= 1
        await trio.sleep(refused.retry_after_s)
        assert (await gates[0].admit_request("c")).allowed
        nursery.cancel_scope.cancel(reason="done")


async def test_a_known_refusal_asks_nobody(
    valkey: Server, make_gate: GateMaker
) -> None:
    """A client that hammers past its limit costs the server no further round trip."""
    async with connected(valkey, make_gate, quota=Quota(0.01, 1)) as (gate, client):
        await gate.admit_request("c")
        first = await gate.admit_request("c")
        before = await evalsha_calls(client)
        again = [await gate.admit_request("c") for _ in range(50)]
        assert await evalsha_calls(client) == before
        assert not any(decision.allowed for decision in again)
        assert 99 < again[-1].retry_after_s < first.retry_after_s


async def test_each_decision_is_one_round_trip(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Ten admissions and ten permits are twenty EVALSHA and nothing else."""
    async with connected(valkey, make_gate, permits=StreamPermits(10)) as (
        gate,
        client,
    ):
        await gate.admit_request("warm")
        warm = await gate.acquire_stream("warm", "warm")
        assert isinstance(warm, Permit)
        warm.release()
        await until(lambda: not gate.leases._to_release)
        before = await evalsha_calls(client)
        for number in range(10):
            await gate.admit_request("c")
            await gate.acquire_stream("c", f"r{number}")
        assert await evalsha_calls(client) - before == 20


async def test_a_server_that_forgot_the_scripts_is_taught_them(
    valkey: Server, make_gate: GateMaker
) -> None:
    """After SCRIPT FLUSH the next decision is right."""
    async with connected(valkey, make_gate) as (gate, client):
        await client.script_flush()
        decision = await gate.admit_request("c")
        assert (decision.allowed, decision.remaining) == (True, 19)
        assert gate.status().mode == "shared"


async def test_a_clock_set_back_costs_one_window_at_most(
    valkey: Server, make_gate: GateMaker
) -> None:
    """A bucket that is full only in the far future counts as empty, not as barred."""
    async with connected(valkey, make_gate, quota=Quota(1, 5)) as (gate, client):
        await client.set(gate.keys.rate("c"), "9000000000000000")
        decision = await gate.admit_request("c")
        assert not decision.allowed
        assert decision.retry_after_s == pytest.approx(1.0)


async def test_permits_are_shared_and_given_back(
    any_server: Server, make_gate: GateMaker
) -> None:
    """Two gates hold one limit; a release at one admits a stream at the other."""
    async with trio.open_nursery() as nursery:
        first, second = make_gate(any_server.url), make_gate(any_server.url)
        await nursery.start(first.run)
        await nursery.start(second.run)
        held = [await first.acquire_stream("a", f"a{n}") for n in range(3)]
        held += [await second.acquire_stream("b", f"b{n}") for n in range(2)]
        assert all(isinstance(permit, Permit) for permit in held)
        assert await second.acquire_stream("b", "b3") == PermitRefusal("server", 5, 1.0)
        assert isinstance(held[0], Permit)
        held[0].release()
        held[0].release()
        assert isinstance(await granted(second, "b", "b4"), Permit)
        assert isinstance(await first.acquire_stream("a", "a9"), PermitRefusal)
        nursery.cancel_scope.cancel(reason="done")


async def test_a_permit_given_back_is_free_for_the_next_stream(
    valkey: Server, make_gate: GateMaker
) -> None:
    """As many clients as permits, one stream after the other each: none is refused.

    Releases that came while others were sent were lost (issue #8).
    """
    options = {"permits": StreamPermits(30), "lease_s": 60.0, "timeout_s": 5.0}
    refused = 0

    async def streams(gate: SharedGate, client_id: str) -> None:
        nonlocal refused
        for number in range(20):
            answer = await gate.acquire_stream(client_id, f"{client_id}-{number}")
            if isinstance(answer, Permit):
                await trio.sleep(0.001 * (number % 5))
                answer.release()
            else:
                refused += 1

    async with connected(valkey, make_gate, **options) as (gate, client):
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(streams, gate, f"c{number}")
        assert refused == 0
        await until(lambda: gate.leases.settled)
        assert await client.hlen(gate.keys.permits[1]) == 0


async def test_one_client_has_its_own_limit(
    valkey: Server, make_gate: GateMaker
) -> None:
    """A client at its limit is refused while others are not, over both gates."""
    async with trio.open_nursery() as nursery:
        first = make_gate(valkey.url, permits=StreamPermits(10, 2))
        second = make_gate(valkey.url, permits=StreamPermits(10, 2))
        await nursery.start(first.run)
        await nursery.start(second.run)
        assert isinstance(await first.acquire_stream("a", "1"), Permit)
        assert isinstance(await second.acquire_stream("a", "2"), Permit)
        assert await first.acquire_stream("a", "3") == PermitRefusal("client", 2, 1.0)
        assert isinstance(await first.acquire_stream("b", "4"), Permit)
        nursery.cancel_scope.cancel(reason="done")


async def test_new_limits_count_at_once(valkey: Server, make_gate: GateMaker) -> None:
    """A reload's limits are those of Valkey's next answer; what is held stays so."""
    few = {"quota": Quota(rate=0.1, burst=1), "permits": StreamPermits(1)}
    more, fewer = (Quota(rate=0.1, burst=9), 3, 2), (Quota(rate=0.1, burst=2), 2, 1)
    async with connected(valkey, make_gate, **few) as (gate, _):
        assert (await gate.admit_request("a")).allowed
        assert not (await gate.admit_request("a")).allowed
        held = [await granted(gate, "a", "1")]
        assert await gate.acquire_stream("b", "2") == PermitRefusal("server", 1, 1.0)

        gate.set_limits(*more)
        decision = await gate.admit_request("a")
        assert (decision.allowed, decision.quota, decision.remaining) == (
            True,
            more[0],
            7,
        )
        held.append(await granted(gate, "a", "3"))
        assert await gate.acquire_stream("a", "8") == PermitRefusal("client", 2, 1.0)
        held.append(await granted(gate, "b", "4"))
        assert await gate.acquire_stream("b", "5") == PermitRefusal("server", 3, 1.0)

        gate.set_limits(*fewer)
        assert not (await gate.admit_request("a")).allowed
        assert await gate.acquire_stream("a", "6") == PermitRefusal("server", 2, 1.0)
        held.pop(0).release()
        held.pop(1).release()
        assert isinstance(await granted(gate, "c", "7"), Permit)
        assert gate.status().mode == "shared"


async def test_one_request_id_on_two_hosts_is_two_streams(
    valkey: Server, make_gate: GateMaker
) -> None:
    """A client's own request id, used twice, neither shares a permit nor loses one."""
    async with (
        connected(valkey, make_gate) as (first, client),
        connected(valkey, make_gate) as (second, _),
    ):
        one = await first.acquire_stream("a", "same")
        two = await second.acquire_stream("a", "same")
        assert isinstance(one, Permit)
        assert isinstance(two, Permit)
        streams = first.keys.permits[1]
        assert await client.hlen(streams) == 2
        two.release()
        one.release()
        await until_async(lambda: client.hlen(streams), 0)


async def test_every_key_expires(valkey: Server, make_gate: GateMaker) -> None:
    """Whatever is left behind by a fleet that is gone vanishes by itself."""
    async with connected(valkey, make_gate) as (gate, client):
        await gate.admit_request("c")
        await gate.acquire_stream("c", "r")
        keys = [*gate.keys.permits, gate.keys.rate("c")]
        lives = [await client.pttl(key) for key in keys]
        assert all(0 < life <= 6_000 for life in lives)


async def test_keys_of_one_script_are_in_one_slot(make_gate: GateMaker) -> None:
    """In a cluster a script's keys share a hash tag; rate buckets do not share one."""
    keys = make_gate("redis://127.0.0.1:1").keys
    tags = {key[key.index("{") : key.index("}") + 1] for key in keys.leaving}
    assert len(tags) == 1
    assert keys.of.startswith(tags.pop())
    rates = {keys.rate(client).partition("}")[0] for client in ("a", "b")}
    assert len(rates) == 2


async def test_a_cancelled_acquire_leaves_no_permit(
    own_valkey: Server, make_gate: GateMaker
) -> None:
    """A permit granted after its request was cancelled goes back by itself."""
    async with connected(own_valkey, make_gate, timeout_s=5.0) as (gate, client):
        own_valkey.freeze()
        with trio.move_on_after(0.05) as scope:
            await gate.acquire_stream("c", "r")
        assert scope.cancelled_caught
        own_valkey.thaw()
        await until_async(lambda: client.hlen(gate.keys.permits[1]), 0)
        assert gate.status().held == 0
        assert len(gate.leases) == 0


async def test_a_process_that_stops_in_good_order_leaves_at_once(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Permits of a server that was shut down are free at once, not after the lease."""
    async with connected(valkey, make_gate, lease_s=60.0) as (gate, _client):
        async with connected(valkey, make_gate, lease_s=60.0) as (leaver, _):
            held = [await leaver.acquire_stream("c", f"r{n}") for n in range(5)]
            for permit in held:
                assert isinstance(permit, Permit)
            assert isinstance(held[0], Permit)
            held[0].release()  # which is told before the goodbye
            await leaver.leave()
            assert leaver.link.up
        assert isinstance(await gate.acquire_stream("c", "next"), Permit)

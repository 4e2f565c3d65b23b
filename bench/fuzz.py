"""`python -m bench.fuzz --minutes N`: hostile clients against the server.

It ends with 1 if the server died, a well-behaved stream was disturbed, a task or a
descriptor was left, or the server had to contain an exception nobody expected.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import trio

from bench.fuzzing import http1, http2
from tests.support.server.client import Client, ask, events_of, get, info
from tests.support.server.servers import ServerProcess, start_process

LIMITS = {"linger_s": 0.2, "head_read_s": 2, "body_read_s": 2, "write_stall_s": 2}
# How long a hostile client reads before it leaves; most answers come at once.
PATIENCE_S = 0.3
WITNESS_EVENTS = 20


@dataclass
class Findings:
    """What a campaign has done and found; `problems` is empty if all is well."""

    sessions: int = 0
    bytes_said: int = 0
    witnesses: int = 0
    problems: list[str] = field(default_factory=list)


async def run(
    server: ServerProcess, *, seconds: float, seed: int, clients: int
) -> Findings:
    """Let `clients` be hostile for so long, next to well-behaved streams.

    A session is made from its own seed, which a problem names: `--seed N --clients 1`
    begins with it.
    """
    findings = Findings()
    before = await info(server.port)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as hostile:
                hostile.start_soon(_witness, server, findings)
                seeds = iter(range(seed, 2**62))
                for _ in range(clients):
                    hostile.start_soon(_client, server, seeds.__next__, findings)
        nursery.cancel_scope.cancel(reason="the campaign is over")
    await _settle(server, before, findings)
    return findings


async def say_one(server: ServerProcess, seed: int, findings: Findings) -> None:
    """Be one hostile client, wholly determined by `seed`."""
    random = Random(seed)
    session = (http1 if random.random() < 0.4 else http2).session(random)
    ending = random.choice(["wait", "wait", "shut", "reset", "leave"])
    async with await Client.connect(server.port) as client:
        for piece in session:
            with trio.move_on_after(PATIENCE_S):
                await client.say(piece)
            findings.bytes_said += len(piece)
            await trio.sleep(random.choice([0, 0, 0.001]))
        if ending == "shut":
            with suppress(trio.BrokenResourceError):  # the server was first
                await client.stream.send_eof()
        elif ending == "reset":
            client.reset()
        elif ending == "wait":
            with trio.move_on_after(PATIENCE_S):
                await client.read_to_end()
    findings.sessions += 1


async def _client(
    server: ServerProcess, next_seed: Callable[[], int], findings: Findings
) -> None:
    while True:
        seed = next_seed()
        try:
            await say_one(server, seed, findings)
        except OSError as exc:
            findings.problems.append(f"seed {seed}: {exc!r}")
            await trio.sleep(0.1)


async def _witness(server: ServerProcess, findings: Findings) -> None:
    """Stream and stream again; each must be complete."""
    while True:
        async with await Client.connect(server.port) as client:
            target = f"/stream?n={WITNESS_EVENTS}&every=0.01"
            await client.say(get(target, "Connection: close"))
            answer = await client.read_to_end()
        if len(events_of(answer)) != WITNESS_EVENTS:
            findings.problems.append(f"a well-behaved stream got {answer!r}")
        findings.witnesses += 1


async def _settle(
    server: ServerProcess, before: dict[str, object], findings: Findings
) -> None:
    """See that nothing is left, nothing was contained, and nobody died."""
    now: dict[str, object] = {}
    for _ in range(40):
        now = await info(server.port)
        if all(now[key] == before[key] for key in ("tasks", "descriptors")):
            break
        await trio.sleep(0.25)
    for key in ("pid", "tasks", "descriptors"):
        if now[key] != before[key]:
            findings.problems.append(f"{key}: {before[key]} before, {now[key]} after")
            tasks = await ask(server.port, get("/tasks", "Connection: close"))
            findings.problems.append(tasks.partition(b"\r\n\r\n")[2].decode())
    log = server.log.read_text()
    for words in ("contained a failure", "the application failed"):
        if words in log:
            count = log.count(words)
            findings.problems.append(f"{words} {count} times, see {server.log}")


def main() -> int:
    """Run one campaign and report."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1_000_000)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    server = start_process(folder, limits=LIMITS)
    try:
        campaign = partial(
            run,
            server,
            seconds=60 * arguments.minutes,
            seed=arguments.seed,
            clients=arguments.clients,
        )
        findings = trio.run(campaign)
    finally:
        server.kill()
    print(
        f"seed {arguments.seed}: {findings.sessions} sessions,"
        f" {findings.bytes_said / 1e6:.1f} MB said,"
        f" {findings.witnesses} well-behaved streams beside them"
    )
    print("\n".join(findings.problems) or "nothing found")
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())

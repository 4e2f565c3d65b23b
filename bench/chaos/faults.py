"""Faults: a plan of them from a seed, and what each does."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
from dataclasses import dataclass
from typing import Final

import trio

from bench.chaos.hosts import Host, Valkey

KINDS: Final = (
    *("kill-worker", "stop-worker", "kill-host", "partition", "descriptors"),
    *("slow-log", "restart-valkey", "stop-valkey"),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when, for how long, and to which host (of Valkey's: to both)."""

    at_s: float
    kind: str
    host: int
    for_s: float
    choice: float  # which worker

    def __str__(self) -> str:
        whom = "" if "valkey" in self.kind else f" of host {self.host}"
        return f"{self.at_s:7.2f} s  {self.kind}{whom} for {self.for_s:.2f} s"


def plan(seed: int, seconds: float, hosts: int) -> list[Fault]:
    """Return the faults of a seed: one about every two seconds, one after the other."""
    dice = random.Random(seed)
    found: list[Fault] = []
    at = dice.uniform(0.5, 1.0)
    while at < seconds:
        lasting = dice.uniform(0.3, 3.0)
        fault = Fault(
            at, dice.choice(KINDS), dice.randrange(hosts), lasting, dice.random()
        )
        found.append(fault)
        at += lasting + dice.uniform(0.2, 2.0)
    return found


async def inflict(fault: Fault, hosts: list[Host], valkey: Valkey) -> None:
    """Do one fault, and undo it after its time."""
    host = hosts[fault.host]
    workers = host.workers()
    worker = workers[int(fault.choice * len(workers))] if workers else 0
    with contextlib.suppress(ProcessLookupError):
        match fault.kind:
            case "kill-worker" if worker:
                os.kill(worker, signal.SIGKILL)
                await trio.sleep(fault.for_s)
            case "stop-worker" if worker:
                os.kill(worker, signal.SIGSTOP)
                await trio.sleep(fault.for_s)
                os.kill(worker, signal.SIGCONT)
            case "kill-host":
                host.kill()  # it is started again by who watches it
                await trio.sleep(fault.for_s)
            case "partition" if host.place.namespace:
                host.place.link("down")
                await trio.sleep(fault.for_s)
                host.place.link("up")
            case "descriptors" if worker:
                soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
                few = len(os.listdir(f"/proc/{worker}/fd"))
                resource.prlimit(worker, resource.RLIMIT_NOFILE, (few, hard))
                await trio.sleep(fault.for_s)
                resource.prlimit(worker, resource.RLIMIT_NOFILE, (soft, hard))
            case "slow-log":
                host.read = trio.Event()
                await trio.sleep(fault.for_s)
                host.read.set()
            case "restart-valkey":
                valkey.stop()
                await trio.sleep(fault.for_s)
                valkey.start()
            case "stop-valkey":
                valkey.signal(signal.SIGSTOP)
                await trio.sleep(fault.for_s)
                valkey.signal(signal.SIGCONT)

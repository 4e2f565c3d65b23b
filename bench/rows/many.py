"""As many live streams as descriptors allow: does one more cost more among them?"""

from __future__ import annotations

import resource
from contextlib import ExitStack
from dataclasses import dataclass

from bench.figures import Figure
from bench.load import Load, Target
from bench.multiplexed import STREAMS, Multiplexed
from bench.processes import Process, gateway, upstream
from bench.rows.idle import IDLE_MODEL
from bench.rows.row import Rounds

# Descriptors that a gateway needs beside the two of each stream.
SPARE = 100


def portions(whole: int, size: int) -> list[int]:
    """Return `whole` in parts of `size`, and what is left."""
    return [min(size, whole - start) for start in range(0, whole, size)]


@dataclass(frozen=True)
class Many(Rounds):
    """`many` live streams against `few`; `probes` more are run among them.

    A stream over HTTP/1.1 is two descriptors; those for which the hard limit leaves
    none share connections over HTTP/2.
    """

    rounds: int = 1
    few: int = 100
    many: int = 10_000
    probes: int = 300
    events: int = 10

    def measure(self) -> list[Figure]:
        """Return what one more stream costs at both levels; only of ours."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        spare = hard - SPARE - 2 * self.probes - self.many - self.many // STREAMS
        alone = max(self.few, min(self.many, spare))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        most = self.many
        held = Figure(f"{most} live streams: held", "", "all", digits=0)
        shared = Figure(f"{most} live streams: of them over HTTP/2", "", digits=0)
        cost = Figure(f"one more stream among {self.few}: CPU", "us", digits=0)
        at_most = "at most 1.5x the line above"
        more = Figure(f"one more stream among {most}: CPU", "us", at_most, digits=0)
        name = f"{most} live streams: RSS per stream, before its heartbeats"
        memory = Figure(name, "kB", digits=1)
        for _ in range(self.rounds):
            with (
                upstream() as source,
                gateway("ours", source) as (process, target),
                Load(target) as load,
                ExitStack() as stack,
            ):
                self.raise_to(load, self.few)
                before = process.resident
                self.probe(target, process)
                cost.add("ours", 1e6 * self.probe(target, process))
                self.raise_to(load, alone)
                rest = [
                    stack.enter_context(Multiplexed(target, count, IDLE_MODEL))
                    for count in portions(most - alone, STREAMS)
                ]
                for streams in rest:
                    streams.read_to_begin(at_most_s=120)
                held.add("ours", len(load.open) + sum(s.count for s in rest))
                shared.add("ours", sum(streams.count for streams in rest))
                memory.add(
                    "ours", (process.resident - before) / 1000 / (most - self.few)
                )
                more.add("ours", 1e6 * self.probe(target, process))
        return [held, shared, memory, cost, more]

    @staticmethod
    def raise_to(load: Load, level: int) -> None:
        """Begin streams until there are so many, a backlog's worth at a time."""
        while (missing := level - len(load.open)) > 0:
            begun = load.begin(min(missing, 500), IDLE_MODEL)
            load.read_to_begin(begun, at_most_s=120)

    def probe(self, target: Target, process: Process) -> float:
        """Return the CPU seconds that one short stream takes, of several at once."""
        with Load(target) as load:
            before = process.cpu_s
            for _ in range(self.probes // 10):
                load.begin(10, f"bench/{self.events}/0")
                load.read_to_end(at_most_s=60)
            return (process.cpu_s - before) / self.probes

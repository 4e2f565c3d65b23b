"""A lone stream: how much later its first event comes than from upstream itself."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.figures import Figure
from bench.load import Load, Target
from bench.processes import gateway, upstream
from bench.rows.row import Rounds


@dataclass(frozen=True)
class First(Rounds):
    """`streams` of one event, one after another, each on a new connection."""

    streams: int = 100

    def measure(self) -> list[Figure]:
        """Return the time to the first event, and what the gateway adds to it."""
        work = "a lone stream"
        begun = Figure(f"{work}: first event of any kind", "ms")
        whole = Figure(f"{work}: first content", "ms")
        added = Figure(f"{work}: first content, added", "ms", "at most 1/3 of naive")
        cpu = Figure(f"{work}: CPU per request", "us", digits=0)
        with (
            upstream() as source,
            gateway("ours", source) as ours,
            gateway("naive", source) as naive,
        ):
            gateways = {"ours": ours, "naive": naive}
            for _, target in gateways.values():
                self.run(target, 20)
            for who in self.turns():
                process, target = gateways[who]
                before = process.cpu_s
                begun_s, first_s = self.run(target, self.streams)
                cpu.add(who, (process.cpu_s - before) / self.streams * 1e6)
                _, direct_s = self.run(source, self.streams)
                begun.add(who, 1000 * begun_s)
                whole.add(who, 1000 * first_s)
                whole.add("direct", 1000 * direct_s)
                added.add(who, 1000 * (first_s - direct_s))
        return [begun, whole, added, cpu]

    @staticmethod
    def run(target: Target, streams: int) -> tuple[float, float]:
        """Return the median times to the first event and content, in seconds."""
        begun: list[float] = []
        first: list[float] = []
        for _ in range(streams):
            with Load(target) as load:
                load.begin(1, "bench/1/0")
                load.read_to_end(at_most_s=10)
                begun += [e.begun_s for e in load.exchanges if e.begun_s is not None]
                first += load.first_s
        return statistics.median(begun), statistics.median(first)

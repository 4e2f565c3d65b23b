"""More work than a core can do: newcomers' first events, and who slows down."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.figures import Figure
from bench.load import Load
from bench.processes import gateway, upstream
from bench.rows.row import Rounds, quantile

# Enough that none ends: upstream would need minutes to hand them over.
FIREHOSE_EVENTS = 200_000


@dataclass(frozen=True)
class Fairness(Rounds):
    """`firehoses` take all that the core has while `newcomers` come one by one."""

    rounds: int = 2
    firehoses: int = 32
    newcomers: int = 30
    settle_s: float = 1.0

    def measure(self) -> list[Figure]:
        """Return the newcomers' times, and the firehoses' rates side by side."""
        work = f"{self.firehoses} firehoses"
        p50 = Figure(f"{work}: newcomer's first event p50", "ms", digits=1)
        p99 = Figure(f"{work}: newcomer's first event p99", "ms", digits=1)
        slowest = Figure(f"{work}: slowest stream to the mean", "", digits=2)
        for who in self.turns():
            with (
                upstream() as source,
                gateway(who, source) as (_, target),
                Load(target) as load,
            ):
                running = load.begin(self.firehoses, f"bench/{FIREHOSE_EVENTS}/0")
                load.read_to_begin(running, at_most_s=60)
                load.read_for(self.settle_s)
                before = [exchange.events for exchange in running]
                times_s = self.newcomers_first(load)
                rates = [e.events - b for e, b in zip(running, before, strict=True)]
            p50.add(who, 1000 * quantile(times_s, 0.5))
            p99.add(who, 1000 * quantile(times_s, 0.99))
            slowest.add(who, min(rates) / statistics.mean(rates))
        return [p50, p99, slowest]

    def newcomers_first(self, load: Load) -> list[float]:
        """Return each newcomer's time to its first event, in seconds."""
        times_s = []
        for _ in range(self.newcomers):
            begun = load.begin(1, "bench/1/0")
            load.read_to_begin(begun, at_most_s=60)
            times_s += [e.first_s for e in begun if e.first_s is not None]
        return times_s

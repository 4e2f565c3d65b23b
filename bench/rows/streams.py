"""What grows with the number of streams: CPU, delays and rates, for the plots."""

from __future__ import annotations

from dataclasses import dataclass

from bench.figures import Figure
from bench.processes import gateway, upstream
from bench.rows.paced import Paced
from bench.rows.relay import Relay
from bench.rows.row import Rounds

LEVELS = (1, 3, 10, 30, 100, 300, 1000, 2000)
# What naive is not asked for: it would only queue.
NAIVE_MOST = 1000


@dataclass(frozen=True)
class Streams(Rounds):
    """Up to `most` streams: paced at `period_ms`, and without delay."""

    rounds: int = 1
    most: int = 2000
    events: int = 50
    period_ms: int = 100
    burst_events: int = 16_000

    def measure(self) -> list[Figure]:
        """Return figures named `NUMBER streams: QUANTITY`."""
        figures: list[Figure] = []
        for level in LEVELS:
            if level <= self.most:
                figures += self.paced(level) + self.unpaced(level)
        return figures

    def paced(self, level: int) -> list[Figure]:
        """Measure streams at a reader's pace."""
        cpu = Figure(f"{level} streams: CPU", "% of a core", digits=0)
        p50 = Figure(f"{level} streams: event delay p50", "ms", digits=1)
        p99 = Figure(f"{level} streams: event delay p99", "ms", digits=1)
        row = Paced(streams=level, events=self.events, period_ms=self.period_ms)
        for who in self.turns():
            if who == "naive" and level > NAIVE_MOST:
                continue
            with upstream() as source, gateway(who, source) as (process, target):
                sample = row.run(target, process)
            cpu.add(who, 100 * sample.cpu)
            p50.add(who, 1000 * sample.delay_p50_s)
            p99.add(who, 1000 * sample.delay_p99_s)
        return [cpu, p50, p99]

    def unpaced(self, level: int) -> list[Figure]:
        """Measure streams without delay; all of a level's have as many events."""
        rate = Figure(f"{level} streams: events/s", "", digits=0)
        row = Relay(streams=level)
        for who in self.turns():
            if who == "naive" and level > NAIVE_MOST:
                continue
            share = 1 if who == "ours" else 4  # naive would take minutes
            events = max(4, self.burst_events // level // share)
            with upstream() as source, gateway(who, source) as (process, target):
                rate.add(who, row.run(target, process, events=events)[1])
        return [rate]

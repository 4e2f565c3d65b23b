"""Many streams at a reader's pace: CPU, delay of each event, and who finishes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from bench.figures import Figure
from bench.load import Load, Target
from bench.processes import Process, gateway, upstream
from bench.rows.row import Rounds, quantile


@dataclass(frozen=True)
class Sample:
    """One run; times in seconds, `cpu` as a share of a core while events flowed."""

    finished: int
    events: int
    cpu: float
    delay_p50_s: float
    delay_p99_s: float
    first_p99_s: float


@dataclass(frozen=True)
class Paced(Rounds):
    """`streams` that all begin at once, `events` each, one in `period_ms`."""

    rounds: int = 1
    streams: int = 1000
    events: int = 150
    period_ms: int = 100

    def measure(self) -> list[Figure]:
        """Return CPU, delays and the number of streams that finished."""
        rate = 1000 / self.period_ms
        work = f"{self.streams} streams x {rate:g} events/s"
        cpu = Figure(f"{work}: CPU", "% of a core", "at most 70", digits=0)
        finished = Figure(f"{work}: finished", "", "all", digits=0)
        p50 = Figure(f"{work}: event delay p50", "ms", digits=1)
        p99 = Figure(f"{work}: event delay p99", "ms", "at most 60", digits=1)
        first = Figure(f"{work}: first event p99", "ms", digits=0)
        for who in self.turns():
            with upstream() as source, gateway(who, source) as (process, target):
                sample = self.run(target, process)
                direct = self.run(source, None)
            for name, taken in ((who, sample), ("direct", direct)):
                finished.add(name, taken.finished)
                p50.add(name, 1000 * taken.delay_p50_s)
                p99.add(name, 1000 * taken.delay_p99_s)
                first.add(name, 1000 * taken.first_p99_s)
            cpu.add(who, 100 * sample.cpu)
        return [cpu, finished, p50, p99, first]

    def run(self, target: Target, process: Process | None) -> Sample:
        """Run all streams; naive's may take three times as long as they should."""
        whole_s = self.events * self.period_ms / 1000
        with Load(target) as load:
            begun = load.begin(self.streams, f"bench/{self.events}/{self.period_ms}")
            with suppress(TimeoutError):  # naive does not come so far
                load.read_to_begin(begun, at_most_s=whole_s * 0.4)
            load.read_for(whole_s * 0.1)  # and what that has held up has gone out
            load.delays_s.clear()
            before = process.cpu_s if process else 0.0
            load.read_for(whole_s * 0.4)
            used = process.cpu_s - before if process else 0.0
            delays_s = load.delays_s.copy()
            load.read_to_end(at_most_s=whole_s * 2)
            return Sample(
                finished=load.finished,
                events=load.events,
                cpu=used / (whole_s * 0.4),
                delay_p50_s=quantile(delays_s, 0.5),
                delay_p99_s=quantile(delays_s, 0.99),
                first_p99_s=quantile(load.first_s, 0.99),
            )

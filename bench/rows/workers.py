"""Two workers against one, on two cores which they share with upstream and load.

What upstream and load take of the two cores is lost to the workers: so the gain for
each core that the workers had is given as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.figures import Figure
from bench.load import Load, Target
from bench.processes import GATEWAY_CORE, LOAD_CORE, gateway, upstream
from bench.rows.row import Rounds


@dataclass(frozen=True)
class Workers(Rounds):
    """`streams` at a time, `events` each, replaced as they end for `seconds`."""

    streams: int = 64
    events: int = 10
    seconds: float = 5.0

    def measure(self) -> list[Figure]:
        """Return streams a second with one worker and with two, and the ratio."""
        work = f"{self.streams} streams x {self.events} events, again and again"
        rates = [
            Figure(f"{work}: streams/s, {count} worker(s)", "", digits=0)
            for count in (1, 2)
        ]
        gain = Figure(f"{work}: two workers to one", "", "at least 1.7")
        used = Figure(f"{work}: cores that two workers had", "")
        each = Figure(f"{work}: two workers to one, for each core", "")
        with (
            upstream() as source,
            gateway("ours", source) as (single, one),
            gateway("ours", source, workers=2, cores=GATEWAY_CORE | LOAD_CORE) as (
                pair,
                two,
            ),
        ):
            for target in (one, two):
                self.run(target, self.seconds / 5)
            for number in range(self.rounds):
                cores = [0.0, 0.0]
                for which in (0, 1) if number % 2 == 0 else (1, 0):
                    process, target = ((single, one), (pair, two))[which]
                    before = process.cpu_s
                    rates[which].add("ours", self.run(target, self.seconds))
                    cores[which] = (process.cpu_s - before) / self.seconds
                low, high = (rate.values["ours"][-1] for rate in rates)
                gain.add("ours", high / low)
                used.add("ours", cores[1])
                each.add("ours", high / cores[1] / (low / cores[0]))
        return [*rates, gain, used, each]

    def run(self, target: Target, seconds: float) -> float:
        """Return finished streams a second."""
        model = f"bench/{self.events}/0"
        with Load(target) as load:
            load.begin(self.streams, model)

            def refill() -> bool:
                load.begin(self.streams - len(load.open), model)
                return False

            took_s = load.read_until(refill, at_most_s=seconds)
            return load.finished / took_s

"""Two workers against one, on two cores which they share with upstream and load."""

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
        with (
            upstream() as source,
            gateway("ours", source) as (_, one),
            gateway("ours", source, workers=2, cores=GATEWAY_CORE | LOAD_CORE) as (
                _,
                two,
            ),
        ):
            for target in (one, two):
                self.run(target, self.seconds / 5)
            for number in range(self.rounds):
                pairs = list(zip((one, two), rates, strict=True))
                for target, rate in pairs if number % 2 == 0 else reversed(pairs):
                    rate.add("ours", self.run(target, self.seconds))
        for low, high in zip(*(rate.values["ours"] for rate in rates), strict=True):
            gain.add("ours", high / low)
        return [*rates, gain]

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

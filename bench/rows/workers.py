"""Two workers against one, on two cores which they share with upstream and load.

What upstream and load take of the two cores is lost to the workers, so the gain for
each core that the workers had is given as well. Where the kernel lets us, they are
compared once more with half a core for each worker, the one and the two: then upstream
and load take nothing that the comparison is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bench.figures import Figure
from bench.load import Load, Target
from bench.processes import GATEWAY_CORE, LOAD_CORE, Process, gateway, upstream
from bench.quota import share_of_a_core
from bench.rows.row import Rounds, alternating
from cancel_lab.procfs import family

Server = tuple[Process, Target]
GOAL: Final = "at least 1.7"
SHARE: Final = 0.5


@dataclass(frozen=True)
class Workers(Rounds):
    """`streams` at a time, `events` each, replaced as they end for `seconds`."""

    streams: int = 64
    events: int = 10
    seconds: float = 5.0

    def measure(self) -> list[Figure]:
        """Return streams a second with one worker and with two, and the ratio."""
        work = f"{self.streams} streams x {self.events} events, again and again"
        with (
            upstream() as source,
            gateway("ours", source) as one,
            gateway("ours", source, workers=2, cores=GATEWAY_CORE | LOAD_CORE) as two,
        ):
            for _, target in (one, two):
                self.run(target, self.seconds / 5)
            figures = self.compare(work, one, two)
            workers = [one[0].process.pid, *family(two[0].process.pid)]
            workers.remove(two[0].process.pid)
            with share_of_a_core(workers, SHARE) as held:
                if held:
                    figures += self.compare(f"{work}, half a core each", one, two)
        return figures

    def compare(self, work: str, one: Server, two: Server) -> list[Figure]:
        """Measure both in turns."""
        rates = [
            Figure(f"{work}: streams/s, {count} worker(s)", "", digits=0)
            for count in (1, 2)
        ]
        gain = Figure(f"{work}: two workers to one", "", GOAL)
        used = Figure(f"{work}: cores that two workers had", "")
        each = Figure(f"{work}: two workers to one, for each core", "")
        for number in range(self.rounds):
            cores = [0.0, 0.0]
            for which in alternating(number, (0, 1)):
                process, target = (one, two)[which]
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

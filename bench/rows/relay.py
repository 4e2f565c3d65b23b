"""Streams that upstream delivers as fast as they are taken: the cost of an event."""

from __future__ import annotations

from dataclasses import dataclass

from bench.figures import Figure
from bench.load import Load, Target
from bench.processes import Process, gateway, upstream
from bench.rows.row import Rounds


@dataclass(frozen=True)
class Relay(Rounds):
    """`streams` of `events` each, without delay."""

    streams: int = 32
    events: int = 2000

    def measure(self) -> list[Figure]:
        """Return CPU per event and events a second."""
        work = f"{self.streams} streams x {self.events} events"
        cpu = Figure(f"{work}: CPU per event", "us", "at most 1/30 of naive")
        rate = Figure(f"{work}: events/s", "", "at least 25x naive", digits=0)
        with (
            upstream() as source,
            gateway("ours", source) as ours,
            gateway("naive", source) as naive,
        ):
            gateways = {"ours": ours, "naive": naive}
            for process, target in gateways.values():
                self.run(target, process, events=20)  # what is imported late is in
            for who in self.turns():
                process, target = gateways[who]
                cost, events_per_s = self.run(target, process, events=self.events)
                cpu.add(who, cost * 1e6)
                rate.add(who, events_per_s)
                if who == "ours":
                    rate.add("direct", self.run(source, None, events=self.events)[1])
        return [cpu, rate]

    def run(
        self, target: Target, process: Process | None, *, events: int
    ) -> tuple[float, float]:
        """Return CPU seconds an event, and events a second."""
        with Load(target) as load:
            before = process.cpu_s if process else 0.0
            load.begin(self.streams, f"bench/{events}/0")
            seconds = load.read_to_end(at_most_s=120)
            used = process.cpu_s - before if process else 0.0
            if load.events != self.streams * events:
                raise RuntimeError(
                    f"{target.name}: expected {self.streams * events} events,"
                    f" got {load.events}"
                )
            return used / load.events, load.events / seconds

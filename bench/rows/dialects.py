"""What an event costs on each of the endpoints below `/v1`, side by side."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from bench.figures import Figure
from bench.load import Load, Target
from bench.processes import Process, gateway, upstream
from bench.rows.relay import Relay
from bench.rows.row import in_turns

# The path, and what stands in each of its content events alone.
MARKS: Final = {
    "/v1/chat/completions": b'"finish_reason":null',
    "/v1/messages": b'"type":"text_delta"',
    "/v1/responses": b'"type":"response.output_text.delta"',
}
GOAL: Final = "at most 1.3"


@dataclass(frozen=True)
class Dialects:
    """`streams` of `events` each without delay; `paced`, with one in `period_ms`.

    Of the paced ones `each` events a stream are measured.
    """

    rounds: int = 7
    streams: int = 32
    events: int = 2000
    paced: int = 100
    period_ms: int = 20
    each: int = 75

    def measure(self) -> list[Figure]:
        """Return CPU per event, and each round's ratio to chat completions."""
        work = (
            f"{self.streams} streams x {self.events} events",
            f"{self.paced} streams x {1000 // self.period_ms} events/s",
        )
        costs = {
            (kind, path): Figure(f"{kind}: CPU per event, {path}", "us")
            for kind in work
            for path in MARKS
        }
        with upstream() as source, gateway("ours", source) as (process, ours):
            targets = {
                path: dataclasses.replace(ours, name=path, path=path, mark=mark)
                for path, mark in MARKS.items()
            }
            relay = Relay(streams=self.streams)
            for target in targets.values():
                relay.run(target, process, events=20)  # what is imported late is in
            for path, target in in_turns(self.rounds, list(targets.items())):
                burst, _ = relay.run(target, process, events=self.events)
                costs[work[0], path].add("ours", 1e6 * burst)
                alone = self.alone(target, process)
                costs[work[1], path].add("ours", 1e6 * alone)
        return [*costs.values(), *self.ratios(work, costs)]

    @staticmethod
    def ratios(
        work: tuple[str, ...], costs: dict[tuple[str, str], Figure]
    ) -> list[Figure]:
        """Return what each costs of the first, round by round."""
        first, *others = MARKS
        found = []
        for kind in work:
            base = costs[kind, first].values["ours"]
            for path in others:
                figure = Figure(f"{kind}: {path} to {first}", "", GOAL)
                for cost, of in zip(
                    costs[kind, path].values["ours"], base, strict=True
                ):
                    figure.add("ours", cost / of)
                found.append(figure)
        return found

    def alone(self, target: Target, process: Process) -> float:
        """Return the CPU seconds of an event that mostly comes alone."""
        with Load(target) as load:
            begun = load.begin(self.paced, f"bench/1000000/{self.period_ms}")
            load.read_to_begin(begun, at_most_s=60)
            self.read(load, self.each // 3)
            before, events = process.cpu_s, load.events
            self.read(load, self.each)
            return (process.cpu_s - before) / (load.events - events)

    def read(self, load: Load, each: int) -> None:
        """Read so many events more of each stream, on the average."""
        wanted = load.events + self.paced * each
        load.read_until(lambda: load.events >= wanted, at_most_s=60)

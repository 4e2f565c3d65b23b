"""Streams of sparse events, as many as live at once: who waits, and how long."""

from __future__ import annotations

import re
import urllib.request
from dataclasses import dataclass

from bench.figures import Figure
from bench.load import Load, Target
from bench.processes import gateway, upstream
from bench.rows.row import RIVALS, in_turns, quantile

_TURN = re.compile(rb"^trio_ai_stream_loop_longest_turn_seconds (.*)$", re.MULTILINE)
# Streams that begin at once: below the backlog, and no test of it.
_AT_ONCE = 100
# On the way up it is measured at these shares of all streams, for the plot.
_SHARES = (8, 4, 2, 1)


@dataclass(frozen=True)
class Pauses:
    """`streams` at 1000 / `period_ms` events a second; then `newcomers` beside them."""

    rounds: int = 1
    streams: int = 4000
    period_ms: int = 1000
    seconds: float = 20.0
    newcomers: int = 1000
    beside: int = 1000
    level_seconds: float = 5.0
    within_s: float = 1.0
    settle_s: float = 2.0

    def measure(self) -> list[Figure]:
        """Return the delays of events, the longest turn, and newcomers' waits."""
        rate = 1000 / self.period_ms
        work = f"{self.streams} streams x {rate:g} events/s"
        p99 = Figure(f"{work}: event delay p99", "ms", "at most 5", digits=1)
        most = Figure(f"{work}: event delay max", "ms", "at most 25", digits=1)
        turn = Figure(
            f"{work}: longest turn, from the first on", "ms", "at most 10", digits=1
        )
        cpu = Figure(f"{work}: CPU", "% of a core", digits=0)
        name = f"{self.newcomers} streams begun within {self.within_s:g} s"
        name += f" beside {self.beside}"
        first = Figure(f"{name}: first content p99", "ms", "at most 20", digits=1)
        steps = sorted({max(1, self.streams // share) for share in _SHARES})
        levels = {
            level: Figure(f"{level} streams: worst event delay", "ms", digits=1)
            for level in steps
        }
        for who in in_turns(self.rounds, RIVALS):
            with upstream() as source, gateway(who, source) as (process, target):
                with Load(target) as load:
                    for level, figure in levels.items():
                        load.raise_to(level, self.model, at_once=_AT_ONCE)
                        load.read_for(self.settle_s)
                        load.delays_s.clear()
                        load.read_for(self.level_seconds)
                        worst_s = max(load.delays_s, default=0.0)
                        figure.add(who, 1000 * worst_s)
                    load.delays_s.clear()
                    before = process.cpu_s
                    load.read_for(self.seconds)
                    used = process.cpu_s - before
                    p99.add(who, 1000 * quantile(load.delays_s, 0.99))
                    most.add(who, 1000 * max(load.delays_s, default=0.0))
                    cpu.add(who, 100 * used / self.seconds)
                    if who == "ours":
                        turn.add(who, 1000 * longest_turn_s(target))
                with Load(target) as load:
                    load.raise_to(self.beside, self.model, at_once=_AT_ONCE)
                    first.add(who, 1000 * self.newcomers_p99_s(load))
        return [p99, most, turn, cpu, first, *levels.values()]

    def newcomers_p99_s(self, load: Load) -> float:
        """Begin streams, one by one, within that time; return the slow ones' wait."""
        begun = []
        for _ in range(self.newcomers):
            begun += load.begin(1, self.model)
            load.read_for(self.within_s / self.newcomers)
        load.read_to_begin(begun, at_most_s=60)
        return quantile([e.first_s for e in begun if e.first_s is not None], 0.99)

    @property
    def model(self) -> str:
        """What upstream sends: events that do not end while anything is measured."""
        return f"bench/100000/{self.period_ms}"


def longest_turn_s(target: Target) -> float:
    """Return what the gateway says of its loop: the longest turn in a minute."""
    url = f"http://127.0.0.1:{target.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as response:
        found = _TURN.search(response.read())
    assert found is not None
    return float(found[1])

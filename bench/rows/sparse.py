"""What real models do, against the same relay on asyncio: few events, or a few streams.

The CPU of a request and of a stream's sparse events, side by side with
`bench/aiohttp_relay.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.figures import Figure
from bench.load import Load
from bench.processes import gateway, upstream
from bench.rows.first import First
from bench.rows.row import RIVALS, in_turns


@dataclass(frozen=True)
class Sparse:
    """`many` x 2/s and `few` x 50/s for `seconds`, and `requests` one by one."""

    rounds: int = 3
    many: int = 1000
    few: int = 20
    seconds: float = 8.0
    requests: int = 100
    settle_s: float = 1.0

    def measure(self) -> list[Figure]:
        """Return CPU and first content, ours to aiohttp's."""
        goal = "at most 0.75 of aiohttp"
        loads = [(self.many, 500), (self.few, 20)]
        paced = [
            Figure(f"{n} streams x {1000 // ms} events/s: CPU", "% of a core", goal, 1)
            for n, ms in loads
        ]
        work = "a lone stream beside aiohttp"
        added = Figure(f"{work}: first content, added", "ms", "at most 0.9 of aiohttp")
        cpu = Figure(f"{work}: CPU per request", "us", "at most 400", digits=0)
        with (
            upstream() as source,
            gateway("ours", source) as ours,
            gateway("aiohttp", source) as aiohttp,
        ):
            gateways = dict(zip(RIVALS, (ours, aiohttp), strict=True))
            for _, target in gateways.values():
                First.run(target, 20)
            for who in in_turns(self.rounds, RIVALS):
                process, target = gateways[who]
                before = process.cpu_s
                _, first_s = First.run(target, self.requests)
                cpu.add(who, (process.cpu_s - before) / self.requests * 1e6)
                _, direct_s = First.run(source, self.requests)
                added.add(who, 1000 * (first_s - direct_s))
                for figure, (streams, period_ms) in zip(paced, loads, strict=True):
                    with Load(target) as load:
                        model = f"bench/100000/{period_ms}"
                        begun = load.begin(streams, model)
                        load.read_to_begin(begun, at_most_s=60)
                        load.read_for(self.settle_s)
                        before = process.cpu_s
                        load.read_for(self.seconds)
                        used = process.cpu_s - before
                    figure.add(who, 100 * used / self.seconds)
        return [*paced, added, cpu]

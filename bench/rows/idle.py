"""Streams that have begun and are silent: what one of them holds of memory."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from bench.figures import Figure
from bench.load import Load
from bench.processes import gateway, upstream
from bench.rows.row import Rounds

# One event at once, the next one far off.
IDLE_MODEL = "bench/2/600000"


@dataclass(frozen=True)
class Idle(Rounds):
    """`streams` that are silent after their first event.

    After `heartbeat_s` each of ours is watched by a task of its own, as it would be
    sooner or later.
    """

    streams: int = 1000
    warm_up: int = 50
    seconds: float = 20.0
    heartbeat_s: float = 8.0

    def measure(self) -> list[Figure]:
        """Return resident memory a stream."""
        work = f"{self.streams} idle streams"
        young = Figure(f"{work}: RSS per stream, before its heartbeats", "kB", digits=1)
        memory = Figure(f"{work}: RSS per stream", "kB", "at most 24", digits=1)
        held = Figure(f"{work}: begun within {self.seconds:g} s", "", "all", digits=0)
        for who in self.turns():
            with (
                upstream() as source,
                gateway(who, source, HEARTBEAT_SECS=str(self.heartbeat_s)) as (
                    process,
                    target,
                ),
                Load(target) as load,
            ):
                load.read_to_begin(load.begin(self.warm_up, IDLE_MODEL), at_most_s=30)
                before = process.resident
                streams = load.begin(self.streams, IDLE_MODEL)
                with suppress(TimeoutError):  # naive does not come so far
                    load.read_to_begin(streams, at_most_s=self.seconds)
                load.read_for(0.5)
                count = sum(stream.first_s is not None for stream in streams)
                held.add(who, count)
                if who == "ours":
                    young.add(who, (process.resident - before) / 1000 / count)
                    load.read_for(self.heartbeat_s)
                memory.add(who, (process.resident - before) / 1000 / count)
        return [young, memory, held]

"""What one server costs as a share of another: two of ours, with other settings."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

from bench.load import Load, Target
from bench.processes import Process, gateway, upstream
from bench.rows.relay import Relay
from bench.rows.row import alternating

SHARES: Final = (
    *("first content", "CPU to first content", "CPU of a lone stream"),
    "CPU of an event",
)


def compare(
    sessions: int,
    settings_of: Callable[[int], list[dict[str, str]]],
    bounds: Mapping[str, float],
) -> bool:
    """Print what the first of two servers costs as a share of the second.

    The machine need not be quiet: what is compared was measured side by side, stream by
    stream or in rounds of a fraction of a second, and mostly by CPU time of the server.
    Two processes of the same program differ by some per cent for as long as they live,
    so each session starts both anew, and its median ratios count as one. Return whether
    each share is within its bound; those of `SHARES` are measured.
    """
    ratios: dict[str, list[float]] = {name: [] for name in bounds}
    with upstream() as source:
        for number in range(sessions):
            settings = settings_of(number)
            with ExitStack() as stack:
                begun = {
                    who: stack.enter_context(
                        gateway("ours", source, **settings[who])  # type: ignore[arg-type]
                    )
                    for who in alternating(number, (1, 0))
                }
                found = _costs([begun[0], begun[1]])
            for name, pairs in found.items():
                ratios[name].append(statistics.median(on / off for on, off in pairs))
    held = True
    for name, medians in ratios.items():
        low, middle, high = mean_of(medians)
        print(
            f"{name}: {middle:.4f} (95 %: {low:.4f} to {high:.4f}),"
            f" {len(medians)} sessions"
        )
        held = held and middle <= bounds[name]
    return held


def _costs(
    both: list[tuple[Process, Target]],
) -> dict[str, list[tuple[float, float]]]:
    """Return pairs of what something costs the one and the other, by its name."""
    relay = Relay(streams=8)
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in SHARES}
    clocks = [process_clock(process.process.pid) for process, _ in both]

    def lone(who: int) -> tuple[float, float, float]:
        """Take one stream; return time and CPU to first content, and CPU of all."""
        before = time.clock_gettime(clocks[who])
        with Load(both[who][1]) as load:
            begun = load.begin(1, "bench/2/15")
            load.read_to_begin(begun, at_most_s=10)
            load.read_for(0.005)  # the clock is behind while the server runs
            first = time.clock_gettime(clocks[who])
            load.read_to_end(at_most_s=10)
            load.read_for(0.005)
        (first_s,) = load.first_s
        last = time.clock_gettime(clocks[who])
        return first_s, first - before, last - before

    for who, (process, target) in enumerate(both):
        relay.run(target, process, events=20)
        for _ in range(50):
            lone(who)
    drawn = random.Random()  # whoever comes second, or after a relay, is not alike
    for number in range(80):
        order = drawn.sample((0, 1), 2)
        lones = {who: lone(who) for who in order}
        for name, *pair in zip(SHARES, lones[0], lones[1], strict=False):
            pairs[name].append((pair[0], pair[1]))
        if number % 6 == 0:
            used = [0.0, 0.0]
            for who in drawn.sample((0, 1), 2):
                before = time.clock_gettime(clocks[who])
                relay.run(both[who][1], None, events=2000)
                used[who] = time.clock_gettime(clocks[who]) - before
            pairs["CPU of an event"].append((used[0], used[1]))
    return pairs


def process_clock(pid: int) -> int:
    """Return the clock of a process's CPU time, all of its threads in it (Linux)."""
    return (~pid << 3) | 2


def mean_of(values: list[float]) -> tuple[float, float, float]:
    """Return the mean, and between what it is with 95 % (bootstrap)."""
    drawn = random.Random(1)
    means = sorted(
        statistics.mean(drawn.choices(values, k=len(values))) for _ in range(1000)
    )
    return means[25], statistics.mean(values), means[974]

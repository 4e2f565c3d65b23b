"""When the collector makes a pass, and which."""

from __future__ import annotations

import gc
import json
import subprocess
import sys

import pytest
import trio
from trio.testing import MockClock

from tests.support.world import world
from trio_ai_stream.app_factory import count
from trio_ai_stream.telemetry.garbage import (
    GROWTH_BYTES,
    QUIET_EVERY_S,
    QUIET_STREAMS,
    STREAM_BYTES,
    CollectorPolicy,
)


class Passes:
    """A policy whose time goes on by as much as a second pass needs at each look."""

    def __init__(self) -> None:
        self.made = 0
        self.now = 0.0
        self.turned: list[bool] = []
        clock = lambda: self.now  # noqa: E731
        self.policy = CollectorPolicy(self._collect, self.turned.append, clock)
        self.policy.look(0, 100)

    def _collect(self) -> None:
        self.made += 1

    def look(self, live: int, resident: int = 100) -> str | None:
        self.now += QUIET_EVERY_S
        return self.policy.look(live, resident)


def test_no_pass_is_made_while_streams_live_or_nothing_has() -> None:
    """Whatever the time; the first quiet moment after them has one, and only one."""
    passes = Passes()
    assert passes.look(0) is None
    assert [passes.look(live) for live in (4000, QUIET_STREAMS + 1, 4000)] == [None] * 3
    assert passes.look(QUIET_STREAMS) == "quiet"
    assert passes.look(0) == "quiet"  # some lived until then
    assert passes.look(0) is None
    assert passes.made == 2


def test_young_passes_stand_still_while_many_streams_live() -> None:
    """They are told so when that changes, and the end leaves them on."""
    passes = Passes()
    for live in (1, QUIET_STREAMS, QUIET_STREAMS + 1, 4000, QUIET_STREAMS, 4000):
        passes.look(live)
    assert passes.turned == [False, True, False]
    passes.policy.close()
    passes.policy.close()
    assert passes.turned == [False, True, False, True]


def test_quiet_moments_are_apart() -> None:
    """A pass is not made at each of them."""
    passes = Passes()
    assert passes.look(1) == "quiet"
    assert passes.policy.look(1, 100) is None


@pytest.mark.parametrize(("more", "reason"), [(0, None), (1, "memory")])
def test_memory_that_streams_do_not_explain_forces_a_pass(
    more: int, reason: str | None
) -> None:
    """Also after most of them have gone; and then from the new level on."""
    passes = Passes()
    passes.look(1000)
    resident = 100 + GROWTH_BYTES + 1000 * STREAM_BYTES + more
    assert passes.look(500, resident) == reason
    assert passes.look(500, resident) is None or not more
    assert passes.made == bool(more)


@pytest.mark.parametrize("ends", [True, False])
async def test_a_worker_turns_its_collector_off_and_on(
    ends: bool, autojump_clock: MockClock
) -> None:
    """While more streams live than a few; its end leaves the collector on."""
    before = gc.isenabled()
    gc.enable()
    try:
        async with world() as w, trio.open_nursery() as nursery:
            nursery.start_soon(count, w.services, None)
            model = "simulator/fast?delay_ms=1000&chunks=5"
            visits = [w.chat(model) for _ in range(QUIET_STREAMS + 1)]
            await trio.sleep(3)
            assert not gc.isenabled()
            if ends:
                for visit in visits:
                    await visit.over.wait()
                await trio.sleep(2)
                assert gc.isenabled()
            nursery.cancel_scope.cancel(reason="the worker ends")
        assert gc.isenabled()
    finally:
        if not before:
            gc.disable()


def test_the_settled_collector_makes_young_passes_only() -> None:
    """What lives is looked at when asked for; new cycles are freed by themselves."""
    program = """
import gc
from trio_ai_stream.telemetry.garbage import settle_collector
gc.disable()  # as a start does
settle_collector()
before = gc.get_stats()
kept = [[] for _ in range(400_000)]
for _ in range(20_000):
    cycle = []
    cycle.append(cycle)
after = gc.get_stats()
print([b["collections"] - a["collections"] for a, b in zip(before, after)])
print(after[0]["collected"] - before[0]["collected"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    collections, collected = done.stdout.splitlines()
    assert json.loads(collections)[0] > 50
    assert json.loads(collections)[2] == 0
    assert int(collected) > 10_000

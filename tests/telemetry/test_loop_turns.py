"""What is known of a slow turn of the loop."""

from __future__ import annotations

import gc
import io
import time
from typing import Any

import trio
import trio.lowlevel
import trio.testing

from tests.telemetry.test_logs import records
from tests.telemetry.test_metrics import metrics, values
from trio_ai_stream.telemetry.logs import configure_logging
from trio_ai_stream.telemetry.sampling import LoopTurns, run_sampling


def hold(seconds: float) -> None:
    """Hold the thread."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def test_a_slow_turn_is_counted_and_its_longest_task_named(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One record for a second's slow turns, however many there were."""
    written = io.StringIO()
    configure_logging("INFO", "json", written)
    subject = metrics()

    async def holds() -> None:
        hold(0.12)  # longer than the other by more than a busy machine adds

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_sampling, subject, lambda _resident: None)
        await trio.sleep(0.1)
        nursery.start_soon(trio.lowlevel.checkpoint)
        nursery.start_soon(holds, name="the culprit")
        await trio.sleep(0.1)
        hold(0.055)
        await trio.sleep(1)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert values(subject)["loop_slow_turns_total",] >= 2
    found: list[Any] = records(written)
    (slow,) = (one for one in found if one["event"] == "slow_turn")
    assert slow["turns"] >= 2
    if slow["turns"] == 2:  # on a busy machine another may have been longer
        assert slow["task"] == "the culprit"
    assert slow["duration_ms"] >= slow["task_ms"] >= 50


async def test_a_turn_knows_what_of_it_was_the_collectors() -> None:
    """A pass within a step; and the watch leaves nothing behind."""
    callbacks = list(gc.callbacks)
    with LoopTurns() as turns:
        await trio.lowlevel.checkpoint()
        turns.take()
        began = time.perf_counter()
        gc.collect()
        took = time.perf_counter() - began
        await trio.lowlevel.checkpoint()
        turn, _ = turns.take()
    assert 0 < turn.collector_s <= took
    assert turn.seconds >= turn.collector_s
    assert gc.callbacks == callbacks

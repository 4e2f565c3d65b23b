"""The queue of all streams' timers: each is called at its time, and not in vain."""

from __future__ import annotations

import gc
import random
import weakref
from contextvars import ContextVar
from functools import partial
from typing import cast

import trio
from trio.testing import MockClock

from tests.support.world import BUDGETS
from trio_ai_stream.stream.protocols import Responder
from trio_ai_stream.stream.timers import StreamTimers, TimerQueue


class Timers:
    """Notes when it was called."""

    def __init__(self) -> None:
        self.called_at: list[float] = []

    def look(self) -> None:
        """Take the time."""
        self.called_at.append(trio.current_time())


async def test_each_is_called_once_when_its_time_has_come(
    autojump_clock: MockClock,
) -> None:
    """Whoever else waits, and in whatever order they have entered."""
    queue, timers = TimerQueue(), [Timers() for _ in range(3)]
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        for one, after_s in zip(timers, (15, 7, 11), strict=True):
            queue.enter(one.look, trio.current_time() + after_s)
            await trio.sleep(4)
        await trio.sleep(30)
        queue.enter(timers[0].look, trio.current_time() + 15)  # nobody waits
        await trio.sleep(16)
        nursery.cancel_scope.cancel()
    assert [one.called_at for one in timers] == [
        [start + 15, start + 42 + 15],
        [start + 4 + 7],
        [start + 8 + 11],
    ]
    assert len(queue) == 0


async def test_who_has_left_is_not_called(autojump_clock: MockClock) -> None:
    """Neither the first in line nor one behind; leaving twice is no error."""
    queue, timers = TimerQueue(), [Timers() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        for one in timers:
            queue.enter(one.look, trio.current_time() + 15)
        await trio.sleep(1)
        for one in [timers[0], timers[0], timers[2]]:
            queue.leave(one.look)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert [len(one.called_at) for one in timers] == [0, 1, 0]


async def test_each_is_called_in_the_context_it_entered_in(
    autojump_clock: MockClock,
) -> None:
    """What a one logs carries its own request's id, though another task calls it."""
    request: ContextVar[str] = ContextVar("request", default="none")
    queue, seen = TimerQueue(), []

    async def stream(name: str) -> None:
        request.set(name)
        queue.enter(lambda: seen.append(request.get()), trio.current_time() + 15)
        await trio.sleep(20)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        for name in ("first", "second"):
            await trio.sleep(1)
            nursery.start_soon(stream, name)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert seen == ["first", "second"]


async def test_who_has_left_is_not_held(autojump_clock: MockClock) -> None:
    """The task that keeps the times sleeps without a hold on whom it sleeps for."""
    queue, one = TimerQueue(), Timers()
    gone = weakref.ref(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        queue.enter(one.look, trio.current_time() + 15)
        await trio.sleep(1)
        queue.leave(one.look)
        gc.disable()
        del one
        held = gone()
        gc.enable()
        nursery.cancel_scope.cancel()
    assert held is None


async def test_a_crowd_that_has_left_leaves_no_line(
    autojump_clock: MockClock,
) -> None:
    """Thousands come and go before their time; who stays is still called at it."""
    queue = TimerQueue()
    called: list[int] = []
    chosen = random.Random(14)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        looks = [partial(called.append, number) for number in range(2000)]
        dues = {look: chosen.randrange(1, 1000) for look in looks}
        for look, due in dues.items():
            queue.enter(look, trio.current_time() + due)
        stay = looks[::100]
        for look in looks:
            if look not in stay:
                queue.leave(look)
        assert len(queue) == len(stay)
        assert len(queue._line) < 5 * len(stay)
        await trio.sleep(1001)
        assert queue._line == []
        for look in looks[:10]:  # fewer than are cleared away in one go
            queue.enter(look, trio.current_time() + 15)
        for look in looks[:10]:
            queue.leave(look)
        assert queue._line == []
        nursery.cancel_scope.cancel()
    by_time = sorted(stay, key=dues.__getitem__)
    assert called == [look.args[0] for look in by_time]


class Client:
    """Takes heartbeats."""

    def __init__(self) -> None:
        self.beats_at: list[float] = []

    async def heartbeat(self) -> None:
        """Note the time."""
        await trio.lowlevel.checkpoint()
        self.beats_at.append(trio.current_time())


async def test_a_comment_that_comes_as_a_heartbeat_is_due_does_not_take_its_place(
    autojump_clock: MockClock,
) -> None:
    """The client was told nothing by it, and would have waited for twice the time."""
    client, start = Client(), trio.current_time()
    timers = StreamTimers(BUDGETS, cast("Responder", client), TimerQueue(), "r")
    async with trio.open_nursery() as nursery:
        timers.begin(nursery)
        timers.waiting_since = start
        for _ in range(3):
            await trio.sleep(BUDGETS.heartbeat_s)
            timers.look()
            timers.waiting_since = None  # the relay has the comment
            await timers.writable()
            timers.waiting_since = trio.current_time()
    assert client.beats_at == [start + n * BUDGETS.heartbeat_s for n in (1, 2, 3)]

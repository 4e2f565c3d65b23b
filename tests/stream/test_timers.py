"""When a stream's one is started: not before it may be needed, and not in vain."""

from __future__ import annotations

import gc
import weakref
from contextvars import ContextVar

import trio
from trio.testing import MockClock

from trio_ai_stream.stream.timers import TimerQueue


class Timers:
    """Notes when it was started."""

    def __init__(self) -> None:
        self.began_at: list[float] = []

    def begin(self) -> None:
        """Take the time."""
        self.began_at.append(trio.current_time())


async def test_each_is_started_once_when_its_time_has_come(
    autojump_clock: MockClock,
) -> None:
    """The time counts from each one's own entry, whoever else waits."""
    queue, timers = TimerQueue(15), [Timers() for _ in range(3)]
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        for one in timers:
            queue.enter(one.begin)
            await trio.sleep(4)
        await trio.sleep(30)
        queue.enter(timers[0].begin)  # after there was nobody to wait for
        await trio.sleep(16)
        nursery.cancel_scope.cancel()
    assert [one.began_at for one in timers] == [
        [start + 15, start + 42 + 15],
        [start + 4 + 15],
        [start + 8 + 15],
    ]
    assert len(queue) == 0


async def test_who_has_left_is_not_started(autojump_clock: MockClock) -> None:
    """Neither the first in line nor one behind; leaving twice is no error."""
    queue, timers = TimerQueue(15), [Timers() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        begins = [one.begin for one in timers]
        for begin in begins:
            queue.enter(begin)
        await trio.sleep(1)
        for begin in [begins[0], begins[0], begins[2]]:
            queue.leave(begin)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert [len(one.began_at) for one in timers] == [0, 1, 0]


async def test_each_is_started_in_the_context_it_entered_in(
    autojump_clock: MockClock,
) -> None:
    """What a one logs carries its own request's id, though another task starts it."""
    request: ContextVar[str] = ContextVar("request", default="none")
    queue, seen = TimerQueue(15), []

    async def stream(name: str) -> None:
        request.set(name)
        queue.enter(lambda: seen.append(request.get()))
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
    queue, one = TimerQueue(15), Timers()
    gone = weakref.ref(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        queue.enter(one.begin)
        await trio.sleep(1)
        queue.leave(one.begin)
        gc.disable()
        del one
        held = gone()
        gc.enable()
        nursery.cancel_scope.cancel()
    assert held is None

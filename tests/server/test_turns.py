"""A crowd of readers passes in bounded parts, one part in a turn of the loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import trio
from trio.testing import MockClock

from tests.support.server.client import Client, get
from tests.support.server.servers import LocalServer, serve_while
from trio_ai_stream.server.sockets import READS_AT_MOST, Turns


class TurnCount(trio.abc.Instrument):
    """Numbers the turns of the loop."""

    turn = 0

    def before_io_wait(self, timeout: float) -> None:
        """Count one."""
        self.turn += 1


@contextmanager
def counting() -> Iterator[TurnCount]:
    """Number the turns of the loop that runs this."""
    count = TurnCount()
    trio.lowlevel.add_instrument(count)
    try:
        yield count
    finally:
        trio.lowlevel.remove_instrument(count)


async def test_those_in_line_pass_in_their_order_and_not_all_at_once(
    mock_clock: MockClock,
) -> None:
    """A hundred readers at one moment: ten at once, and ten in each turn after it."""
    turns = Turns(at_most=10)
    passed: list[tuple[int, int]] = []

    async def read(number: int, came: trio.Event) -> None:
        crowded = turns.crowded()
        came.set()
        if crowded:
            await turns.stand_in_line()
        passed.append((number, count.turn))

    with counting() as count, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                came = trio.Event()
                nursery.start_soon(read, number, came)
                await came.wait()
    # Those of one turn run in Trio's order, which is none.
    in_order = [n for i in range(0, 100, 10) for n in sorted(passed[i : i + 10])]
    assert [number for number, _ in in_order] == list(range(100))
    later = [turn for _, turn in passed[10:]]
    assert all(later.count(turn) <= 10 for turn in later)
    assert len(turns) == 0


async def test_readers_that_are_apart_do_not_wait(mock_clock: MockClock) -> None:
    """No window has more than it may: nobody is sent into the line."""
    turns = Turns(at_most=10, window_s=1)
    for _ in range(20):
        assert not any(turns.crowded() for _ in range(10))
        assert turns.crowded()
        mock_clock.jump(1)


async def test_who_is_cancelled_in_line_holds_up_nobody(mock_clock: MockClock) -> None:
    """Its place is given up; those behind it pass."""
    turns = Turns(at_most=1)
    assert not turns.crowded()
    passed = []

    async def read(number: int) -> None:
        assert turns.crowded()
        await turns.stand_in_line()
        passed.append(number)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as leaving:
                for _ in range(5):
                    leaving.start_soon(read, -1)
                leaving.cancel_scope.cancel(reason="gone before its turn")
            for number in range(3):
                nursery.start_soon(read, number)
    assert sorted(passed) == [0, 1, 2]


async def test_a_crowd_that_leaves_at_once_is_read_in_parts(
    mock_clock: MockClock,
) -> None:
    """The server finds them gone over several turns, and each of them is found."""
    clients = 4 * READS_AT_MOST
    told: list[int] = []

    async def body(server: LocalServer) -> None:
        with counting() as count:
            server.application._tell = lambda: told.append(count.turn)  # type: ignore[method-assign]
            async with AsyncExitStack() as crowd:
                for _ in range(clients):
                    client = await Client.connect(server.port)
                    await crowd.enter_async_context(client)
                    await client.say(get("/stream?n=2&every=600"))
                    await client.read_until(lambda data: b"data: 0" in data)
            await server.application.gone(clients)

    await serve_while(body)
    most = max(told.count(turn) for turn in told)
    assert most <= 2 * READS_AT_MOST

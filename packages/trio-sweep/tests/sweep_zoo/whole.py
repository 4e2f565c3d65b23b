"""Programs that keep every invariant, however they are cancelled."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

from sweep_zoo.animal import Zoo
from trio_sweep import Cause, MemoryListener, MemoryStream, memory_listener

zoo = Zoo()


async def echo(stream: MemoryStream) -> None:
    """Send back what comes, until the end."""
    async for data in stream:
        await stream.send_all(data)


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[MemoryListener]:
    """Yield a listener in memory that echoes."""
    async with memory_listener(echo) as listener:
        yield listener


@contextlib.asynccontextmanager
async def slow_echo_server() -> AsyncIterator[MemoryListener]:
    """The same with pipes that hold nothing: every send waits for its receiver."""
    async with memory_listener(echo, capacity=0, connect_s=0.5) as listener:
        yield listener


async def ask(listener: MemoryListener) -> None:
    """Ask the server once, on a connection of its own."""
    stream = await listener.connect()
    async with stream:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"


@zoo.animal()
async def sleeps() -> None:
    """Wait, and nothing else."""
    await trio.sleep(1)


@zoo.animal()
async def children_in_a_nursery() -> None:
    """Two children, and a parent that is done first."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1)
        nursery.start_soon(trio.sleep, 2)
        await trio.lowlevel.checkpoint()


@zoo.animal()
async def timeout_inside() -> None:
    """A timeout of its own that does pass."""
    with trio.move_on_after(1):
        await trio.sleep_forever()
    await trio.lowlevel.checkpoint()


@zoo.animal()
async def timeout_caught() -> None:
    """A timeout that raises, and is handled."""
    try:
        with trio.fail_after(1):
            await trio.sleep(5)
    except trio.TooSlowError:
        await trio.sleep(1)


@zoo.animal(shield_limit_s=1)
async def bounded_shield() -> None:
    """A clean-up that gives itself half a second."""
    try:
        await trio.sleep(1)
    finally:
        with trio.move_on_after(0.5, shield=True):
            await trio.sleep(5)


@zoo.animal()
async def raises_again() -> None:
    """Clean up and raise Cancelled again."""
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        _ = sum(range(3))
        raise


@zoo.animal()
async def retries_but_ends() -> None:
    """Take Cancelled for a failure twice; the third attempt passes it on."""
    for _ in range(2):
        with contextlib.suppress(BaseException):
            await trio.sleep(1)
    await trio.sleep(1)


@zoo.animal()
async def channel_of_items() -> None:
    """A producer and a consumer, each of which closes its end."""
    send, receive = trio.open_memory_channel[int](0)

    async def produce() -> None:
        async with send:
            for number in range(3):
                await send.send(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        async with receive:
            assert [number async for number in receive] == [0, 1, 2]


@contextlib.asynccontextmanager
async def lock() -> AsyncIterator[trio.Lock]:
    """Yield a lock."""
    yield trio.Lock()


async def takes(it: trio.Lock) -> None:
    """Take the lock and give it back."""
    async with it:
        await trio.lowlevel.checkpoint()


@zoo.animal(world=lock, after=takes, check=lambda it: ["held"] * it.locked())
async def lock_with_a_queue(it: trio.Lock) -> None:
    """Three tasks take turns."""

    async def turn() -> None:
        async with it:
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(turn)


@zoo.animal()
async def generator_that_is_closed() -> None:
    """An async generator that its user closes."""

    async def numbers() -> AsyncIterator[int]:
        for number in range(5):
            await trio.lowlevel.checkpoint()
            yield number

    async with contextlib.aclosing(numbers()) as them:  # type: ignore[type-var]
        async for number in them:
            if number == 2:
                break


@zoo.animal(world=echo_server, after=ask)
async def request(listener: MemoryListener) -> None:
    """A client that closes its connection whatever happens."""
    await ask(listener)


@zoo.animal(world=slow_echo_server, after=ask)
async def request_over_lockstep_pipes(listener: MemoryListener) -> None:
    """The same, where each send waits."""
    await ask(listener)


@zoo.animal(
    world=echo_server,
    after=ask,
    causes=(
        Cause("reset", MemoryListener.reset, raises=(trio.BrokenResourceError,)),
        Cause("half-close", MemoryListener.half_close, raises=(AssertionError,)),
    ),
    pairs=True,
    seeds=1,
)
async def request_over_a_bad_network(listener: MemoryListener) -> None:
    """The same, where connections break."""
    await ask(listener)


@zoo.animal(world=echo_server, after=ask)
async def half_closed(listener: MemoryListener) -> None:
    """A client that ends its own direction, and reads the rest."""
    stream = await listener.connect()
    async with stream:
        await stream.send_all(b"x" * 10_000)
        with trio.move_on_after(0.1):
            await stream.send_all(b"y")
        got = 0
        await stream.send_eof()
        async for data in stream:
            got += len(data)
        assert got == 10_001


@zoo.animal()
async def thread() -> None:
    """A thread that cannot be cancelled, and ends by itself."""
    assert await trio.to_thread.run_sync(sum, (1, 2, 3)) == 6


@zoo.animal()
async def threads_side_by_side() -> None:
    """Threads that may be left alone, one of which asks back."""

    def asks() -> None:
        trio.from_thread.run(trio.sleep, 1)
        assert trio.from_thread.run_sync(len, "four") == 4

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, asks)
        for _ in range(2):
            await trio.to_thread.run_sync(len, "abc", abandon_on_cancel=True)


@zoo.animal()
async def started_service() -> None:
    """A child that says when it is ready."""

    async def run(task_status: trio.TaskStatus[int]) -> None:
        await trio.sleep(1)
        task_status.started(5)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        assert await nursery.start(run) == 5
        nursery.cancel_scope.cancel()


@zoo.animal()
async def condition() -> None:
    """One task waits for what another one notifies."""
    ready = trio.Condition()

    async def wait() -> None:
        async with ready:
            await ready.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(1)
        async with ready:
            ready.notify_all()

"""tricycle, trio-util and aiologic: their synchronization and streams."""

from __future__ import annotations

import contextlib
from functools import partial

import aiologic
import tricycle
import trio
import trio_util
from common import echo, holding, main, network, use

from trio_sweep import MemoryListener

for name, make in (
    ("Lock", aiologic.Lock),
    ("Semaphore", lambda: aiologic.Semaphore(1)),
    ("RLock", aiologic.RLock),
    ("CapacityLimiter", lambda: aiologic.CapacityLimiter(1)),
):
    use("aiologic", name, **holding(make), scopes=True)


@contextlib.asynccontextmanager
async def rwlock():
    """Yield tricycle's lock of readers and writers."""
    yield tricycle.RWLock()


async def readers_and_writer(lock) -> None:
    """Two readers and a writer."""

    async def use(guard) -> None:
        async with guard():
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, lock.read_locked)
        nursery.start_soon(use, lock.write_locked)
        nursery.start_soon(use, lock.read_locked)


async def service() -> None:
    """A nursery whose services end after its work."""
    async with tricycle.open_service_nursery() as nursery:
        nursery.start_soon(trio.sleep, 2)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()


use("tricycle", "RWLock", readers_and_writer, world=rwlock, after=readers_and_writer)
use("tricycle", "open_service_nursery", service, scopes=True)


async def buffered(listener: MemoryListener) -> None:
    """Read lines by tricycle's TextReceiveStream."""
    async with await listener.connect() as stream:
        await stream.send_all(b"one\ntwo\n")
        lines = tricycle.TextReceiveStream(stream)
        assert await lines.receive_line() == "one\n"


use("tricycle", "TextReceiveStream", buffered, world=network(echo))


@contextlib.asynccontextmanager
async def value():
    """Yield trio-util's observable value."""
    yield trio_util.AsyncValue(0)


async def waits_for_values(it) -> None:
    """Wait for values in several ways, while another task sets them."""

    async def change() -> None:
        for number in range(1, 4):
            await trio.sleep(1)
            it.value = number

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        await trio_util.wait_any(lambda: it.wait_value(2), partial(trio.sleep, 9))
        with it.open_transform(lambda n: n * 2) as doubled:
            await doubled.wait_value(6)


async def periodic() -> None:
    """Three turns of a periodic loop, and a compound of awaitables."""
    turns = 0
    async with contextlib.aclosing(trio_util.periodic(1)) as ticks:
        async for _ in ticks:
            turns += 1
            if turns == 3:
                break
    await trio_util.wait_all(partial(trio.sleep, 1), partial(trio.sleep, 2))


use("trio-util", "AsyncValue", waits_for_values, world=value, scopes=True)
use("trio-util", "periodic and wait_all", periodic, scopes=True)


if __name__ == "__main__":
    main()

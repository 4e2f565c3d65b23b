"""aiometer, aioresult and trio-asyncio: tasks that others wait for."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import aiometer
import aioresult
import trio
import trio_asyncio
from common import main, use


async def square(number: int) -> int:
    """Take a second."""
    await trio.sleep(1)
    return number * number


async def meter() -> None:
    """Run four jobs, two at a time, and leave the iteration early."""
    jobs = [partial(square, number) for number in range(4)]
    async with aiometer.amap(square, range(4), max_at_once=2) as results:
        async for _ in results:
            break
    assert await aiometer.run_all(jobs, max_at_once=2) == [0, 1, 4, 9]


async def result() -> None:
    """Wait for the first of two tasks, then for both."""
    async with trio.open_nursery() as nursery:
        both = [aioresult.ResultCapture.start_soon(nursery, square, n) for n in (2, 3)]
        await aioresult.wait_any(both)
        await aioresult.wait_all(both)
    assert [one.result() for one in both] == [4, 9]


async def loop() -> None:
    """Call asyncio from Trio, and Trio from asyncio, in a loop of its own."""

    async def of_asyncio() -> int:
        await asyncio.sleep(1)
        return await trio_asyncio.trio_as_aio(square)(3)

    async with trio_asyncio.open_loop():
        assert await trio_asyncio.aio_as_trio(of_asyncio)() == 9


@contextlib.asynccontextmanager
async def open_loop():
    """Yield a loop of asyncio."""
    async with trio_asyncio.open_loop() as it:
        yield it


async def call(_loop) -> None:
    """Call asyncio in a loop that lives on."""
    await trio_asyncio.aio_as_trio(asyncio.sleep)(1)


use("aiometer", "amap and run_all", meter)
use("aioresult", "wait_any and wait_all", result)
use("trio-asyncio", "a loop", loop)
use("trio-asyncio", "a call", call, world=open_loop, after=call)

if __name__ == "__main__":
    main()

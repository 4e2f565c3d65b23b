"""trio-asyncio 0.16.0: `open_loop` shields its loop, and may swallow a late cancel."""

import asyncio

import trio
from trio_asyncio import aio_as_trio, open_loop, trio_as_aio

from trio_sweep import sweep


async def loop():
    async with open_loop():
        await aio_as_trio(asyncio.sleep)(1)
        await aio_as_trio(trio_as_aio(trio.sleep))(1)


print(sweep(loop, seeds=3, scopes=False))

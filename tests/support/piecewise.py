"""A stream that sends in pieces, as a network does."""

from __future__ import annotations

from random import Random

import trio


class PiecewiseStream(trio.abc.Stream):
    """Sends what it is given in pieces of random sizes, each alone.

    The other end reads between any two of them, and other tasks run.
    """

    def __init__(self, stream: trio.SocketStream, random: Random) -> None:
        self._stream = stream
        self._random = random

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        while left:
            size = self._random.choice((1, 4, 30, 300, 5000))
            await self._stream.send_all(left[:size])
            left = left[size:]
            for _ in range(3):
                await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._stream.aclose()

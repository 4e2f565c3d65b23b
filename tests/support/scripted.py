"""An upstream that sends what a test says, byte for byte, over memory streams."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.support.world import World, world

COMMENT = b": OPENROUTER PROCESSING\n\n"
HOLD = "hold"
MUMBLE = "mumble"
CLOSE = "close"
Step = bytes | float | str
"""Bytes are sent, a number is a time to wait, a word is what becomes of the rest."""


class ScriptedUpstream:
    """Answers each request with the same steps, and counts the requests."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.requests = 0

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        try:
            async with stream:
                while await self._read(stream):
                    self.requests += 1
                    for step in self.steps:
                        await self._take(stream, step)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _take(self, stream: trio.abc.Stream, step: Step) -> None:
        if isinstance(step, bytes):
            await stream.send_all(step)
        elif isinstance(step, float):
            await trio.sleep(step)
        elif step == MUMBLE:
            while True:
                await stream.send_all(chunked(COMMENT))
                await trio.sleep(0.5)
        elif step == HOLD:
            await trio.sleep_forever()
        else:
            raise trio.ClosedResourceError

    async def _read(self, stream: trio.abc.Stream) -> bool:
        request = b""
        while b"\r\n\r\n" not in request:
            data = await stream.receive_some()
            if not data:
                return False
            request += data
        head, _, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        missing = (int(length[1]) if length else 0) - len(body)
        while missing > 0:
            missing -= len(await stream.receive_some(missing))
        return True


def chunked(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(kind: str | None = "text/event-stream", **more: str) -> bytes:
    """Return the head of a response with a chunked body."""
    fields = {"Transfer-Encoding": "chunked"}
    if kind is not None:
        fields["Content-Type"] = kind
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode()


LAST_CHUNK = b"0\r\n\r\n"


@asynccontextmanager
async def scripted(
    *steps: Step, **options: Any
) -> AsyncIterator[tuple[World, ScriptedUpstream]]:
    """Give a world whose upstream takes these steps."""
    async with world(**options) as w:
        upstream = ScriptedUpstream(steps)
        w.simulator = upstream  # type: ignore[assignment]
        yield w, upstream  # in a context manager made for it

"""A small streaming application in bare ASGI, so that server tests need no upstream.

`tests/support/server/process.py` makes one for a server process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any
from urllib.parse import parse_qs

import trio

from tests.support.server.stacks import stacks
from trio_ai_stream.server.http_stream import EXTENSION
from trio_ai_stream.server.serving import counters

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

BLOCK = b"x" * 65_536


@dataclass
class Application:
    """An ASGI application that counts what it has seen."""

    draining: bool = False
    ending: trio.Event = field(default_factory=trio.Event)
    produced_bytes: int = 0
    stalled: int = 0
    drained: int = 0  # cut off by the server itself
    disconnected: int = 0
    told: int = 0  # that a client is gone, in the step that found it out
    finished: int = 0
    torn: int = 0
    _changed: trio.Event = field(default_factory=trio.Event)

    async def produced(self, size: int) -> None:
        """Wait until `/flood` has written so many bytes."""
        while self.produced_bytes < size:
            await self._changed.wait()

    async def gone(self, count: int = 1) -> None:
        """Wait until so many requests were told that their client is gone."""
        while self.disconnected < count:
            await self._changed.wait()

    async def cut_off(self) -> None:
        """Wait until the end of a drain has cut a request off."""
        while not self.drained:
            await self._changed.wait()

    async def tore(self) -> None:
        """Wait until `/torn` has cancelled a send that waited."""
        while not self.torn:
            await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def __len__(self) -> int:
        """Return 0: each stream is an exchange's."""
        return 0

    async def until_over(self) -> None:
        """Do nothing."""

    def begin_drain(self) -> None:
        """Refuse what is new."""
        self.draining = True

    def end_streams(self) -> bool:
        """Let streams say their last words."""
        self.ending.set()
        return False

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        exchange = scope["extensions"].get(EXTENSION)
        if exchange is not None:
            exchange.on_disconnect(self._tell)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, scope, receive, nursery)
            await self._answer(scope, receive, send)
            nursery.cancel_scope.cancel(reason="answered")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    def _tell(self) -> None:
        self.told += 1

    async def _watch(self, scope: Any, receive: Receive, nursery: trio.Nursery) -> None:
        """Wait for the client to go away, unless the route reads for itself."""
        if scope["path"] in {"/echo", "/unread"}:
            return
        while (await receive())["type"] != "http.disconnect":
            pass
        self.disconnected += 1
        exchange = scope["extensions"].get(EXTENSION)
        if exchange is not None and exchange.stalled:
            self.stalled += 1
        if exchange is not None and exchange.drained:
            self.drained += 1
        self._change()
        nursery.cancel_scope.cancel(reason="client gone")

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        query = {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
        path = scope["path"]
        if self.draining and path != "/info":
            await _reply(send, 503, b"draining")
        elif path == "/stream":
            if numbers := _numbers(query, "n", "every"):
                await self._stream(send, int(numbers[0]), numbers[1])
            else:
                await _reply(send, 400, b"expected numbers n and every")
        elif path == "/flood":
            await self._flood(send, float(query.get("most", "inf")))
        elif path == "/torn":
            await self._tear(send)
        elif path == "/told":
            await self._tell_at_the_end(send)
        elif path == "/given-up":
            await _head(send)
            with trio.move_on_after(0.1):
                await send(_body(BLOCK))
        elif path == "/cut-head":
            with trio.CancelScope() as scope:
                scope.cancel(reason="a budget that ends with the head")
                await _head(send)
            await _finish(send, b"the end")
        elif path == "/joined":
            scope["extensions"][EXTENSION].body_follows = True
            await _head(send)
            if piece := query.get("piece", "").encode():
                await send(_body(piece))
                await self.ending.wait()
            await send({"type": "http.response.body", "body": b""})
        elif path == "/block":
            time.sleep(60)  # noqa: ASYNC251 - a loop that is blocked is what is tested
        elif path == "/spare":
            exchange = scope["extensions"][EXTENSION]
            await _reply(send, 200, str(exchange.probes_only).encode())
        elif path == "/echo":
            await _reply(send, 200, await _read(receive))
        elif path == "/unread":
            await trio.sleep(float(query.get("after", "0")))
            await _reply(send, 413, b"too large")
        elif path == "/info":
            await _reply(send, 200, json.dumps(self.info()).encode())
        elif path == "/tasks":
            await _reply(send, 200, "\n".join(stacks()).encode())
        elif path == "/hello":  # with a length that may be wrong, or "none"
            await _reply(send, 200, b"hello", length=query.get("length"))
        elif path == "/boom":
            raise RuntimeError("the application failed, as asked")
        elif path == "/boom-midway":
            await _head(send)
            await send(_body(b"data: 0\n\n"))
            raise RuntimeError("the application failed midway, as asked")
        else:
            await _reply(send, 200, path.encode())

    async def _flood(self, send: Send, most_bytes: float) -> None:
        """Send blocks without a pause."""
        await _head(send)
        while self.produced_bytes < most_bytes:
            await send(_body(BLOCK))
            self.produced_bytes += len(BLOCK)
            self._change()
        await _finish(send)

    async def _tear(self, send: Send) -> None:
        """Send blocks until one has to wait, cancel that, and say the end."""
        await _head(send)
        while not self.torn:
            with trio.move_on_after(0.2) as scope:
                await send(_body(BLOCK))
            self.torn += scope.cancelled_caught
        self._change()
        await _finish(send, b"the end")

    async def _tell_at_the_end(self, send: Send) -> None:
        """Send blocks until `end_streams`, which cancels the send that waits; tell."""
        await _head(send)
        async with trio.open_nursery() as nursery:

            async def end() -> None:
                await self.ending.wait()
                nursery.cancel_scope.cancel(reason="the drain is over")

            nursery.start_soon(end)
            while not self.ending.is_set():
                await send(_body(BLOCK))
                self.produced_bytes += len(BLOCK)
                self._change()
        await _finish(send, b"the end")

    async def _stream(self, send: Send, count: int, every_s: float) -> None:
        """Send `count` events; on `end_streams` a terminal one instead of the rest."""
        await _head(send)
        for number in range(count):
            await send(_body(b"data: %d\n\n" % number))
            with trio.move_on_after(every_s):
                await self.ending.wait()
                with trio.move_on_after(0.5, shield=True):
                    await send(_body(b"data: shutting_down\n\n"))
                break
        await _finish(send)
        self.finished += 1

    def info(self) -> dict[str, Any]:
        """Say what has been seen."""
        seen = counters()
        return {
            "pid": os.getpid(),
            "rss_bytes": _rss_bytes(),
            "produced_bytes": self.produced_bytes,
            "stalled": self.stalled,
            "disconnected": self.disconnected,
            "finished": self.finished,
            "draining": self.draining,
            "connections_open": seen.connections_open,
            "exchanges_live": seen.exchanges_live,
            "interventions": dict(seen.interventions),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "descriptors": len(os.listdir("/proc/self/fd")),
        }


async def _head(send: Send, status: int = 200) -> None:
    pid = b"%d" % os.getpid()
    headers = [(b"content-type", b"text/event-stream"), (b"x-pid", pid)]
    await send({"type": "http.response.start", "status": status, "headers": headers})


def _body(data: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}


async def _finish(send: Send, last: bytes = b"") -> None:
    await send(_body(last))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _reply(
    send: Send, status: int, body: bytes, *, length: str | None = None
) -> None:
    said = str(len(body)) if length is None else length
    headers = [] if said == "none" else [(b"content-length", said.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


def _numbers(query: dict[str, str], *names: str) -> list[float]:
    """Return these parameters, [] unless all are numbers: the fuzzer damages them."""
    try:
        numbers = [float(query[name]) for name in names]
    except (KeyError, ValueError):
        return []
    return numbers if all(0 <= number < inf for number in numbers) else []


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

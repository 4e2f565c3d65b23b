"""The same relay on asyncio, as fast as it is easily written: aiohttp, uvloop, orjson.

`python -m bench.aiohttp_relay PORT`; upstream is `UPSTREAM_URL`, as for the naive app.
It has no limits, no budgets, no records: what it does is what any gateway must do.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from contextlib import suppress
from typing import Any

import orjson
import uvloop
from aiohttp import (
    ClientConnectionResetError,
    ClientSession,
    ClientTimeout,
    TCPConnector,
    web,
)

URL = os.environ.get("UPSTREAM_URL", "") + "/chat/completions"
_SESSION = web.AppKey("session", ClientSession)
_NOTHING_ELSE = ClientTimeout(total=None, connect=10)


def payload(asked: dict[str, Any]) -> bytes:
    """Return upstream's request for one of ours."""
    messages = [{"role": "user", "content": asked["prompt"]}]
    body = {"model": asked["model"], "messages": messages, "stream": True}
    return orjson.dumps(body)


def frames(lines: list[bytes]) -> bytes:
    """Return the content of whole lines as events of ours."""
    out = []
    for line in lines:
        if line.startswith(b"data: {"):
            choices = orjson.loads(line[6:]).get("choices")
            content = choices[0]["delta"].get("content") if choices else None
            if content:
                event = orjson.dumps({"type": "content", "content": content})
                out.append(b"data: %b\n\n" % event)
    return b"".join(out)


async def chat(request: web.Request) -> web.StreamResponse:
    """Relay one chat; a client that leaves cancels this handler."""
    data = payload(orjson.loads(await request.read()))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    fields = {"Content-Type": "application/json"}
    session = request.app[_SESSION]
    with suppress(ClientConnectionResetError):  # the client has gone
        async with session.post(URL, data=data, headers=fields) as answer:
            await response.prepare(request)
            rest = b""
            async for block in answer.content.iter_any():
                *lines, rest = (rest + block).split(b"\n")
                if written := frames(lines):
                    await response.write(written)
        await response.write(b'data: {"type":"done"}\n\n')
        await response.write_eof()
    return response


async def serve(port: int) -> None:
    """Serve until killed."""
    app = web.Application()
    app.router.add_post("/chat", chat)
    async with ClientSession(
        connector=TCPConnector(limit=0), timeout=_NOTHING_ELSE
    ) as session:
        app[_SESSION] = session
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        gc.freeze()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))

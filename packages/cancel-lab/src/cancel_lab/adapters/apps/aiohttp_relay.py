"""aiohttp's server and client: ``aiohttp_relay.py PORT [cancelled]``.

Since its version 3.7 aiohttp lets a handler go on when its client has left, and finds
that out at the next write; ``handler_cancellation`` brings back what it did before.
"""

from __future__ import annotations

import json
import os
import sys

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

URL = os.environ.get("UPSTREAM_URL", "") + "/chat/completions"
SESSION = web.AppKey("session", ClientSession)


async def chat(request: web.Request) -> web.StreamResponse:
    """Relay one chat."""
    asked = await request.json()
    messages = [{"role": "user", "content": asked["prompt"]}]
    body = {"model": asked["model"], "messages": messages, "stream": True}
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    async with request.app[SESSION].post(URL, json=body) as answer:
        await response.prepare(request)
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            for choice in json.loads(line[6:]).get("choices", []):
                if content := choice.get("delta", {}).get("content"):
                    event = json.dumps({"type": "content", "content": content})
                    await response.write(f"data: {event}\n\n".encode())
    await response.write(b'data: {"type":"done"}\n\n')
    await response.write_eof()
    return response


async def make_app() -> web.Application:
    """Return the application; its one client has no limits of its own."""
    app = web.Application()
    connector, timeout = TCPConnector(limit=0), ClientTimeout(total=None)
    app[SESSION] = ClientSession(connector=connector, timeout=timeout)
    app.router.add_post("/chat", chat)
    return app


if __name__ == "__main__":
    web.run_app(
        make_app(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        handler_cancellation="cancelled" in sys.argv,
        print=None,
    )

"""The stack of this project written the obvious way: Quart-Trio and httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from quart import Response, request
from quart_trio import QuartTrio

from .relay import URL, contents, new_client, payload

app = QuartTrio(__name__)
client = new_client()


async def _frames(body: dict[str, Any]) -> AsyncIterator[bytes]:
    async with client.stream("POST", URL, json=payload(body)) as response:
        async for event in contents(response):
            yield f"data: {event}\n\n".encode()  # noqa: ASYNC119


async def chat() -> Response:
    """Relay one chat."""
    return Response(_frames(await request.get_json()), mimetype="text/event-stream")


app.add_url_rule("/chat", view_func=chat, methods=["POST"])

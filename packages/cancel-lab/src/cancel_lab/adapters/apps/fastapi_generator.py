"""FastAPI, the upstream request opened inside the response's generator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from .relay import URL, contents, new_client, payload

app = FastAPI()
client = new_client()


async def _frames(body: dict[str, Any]) -> AsyncIterator[bytes]:
    async with client.stream("POST", URL, json=payload(body)) as response:
        async for event in contents(response):
            yield f"data: {event}\n\n".encode()  # noqa: ASYNC119


async def chat(request: Request) -> StreamingResponse:
    """Relay one chat."""
    body = await request.json()
    return StreamingResponse(_frames(body), media_type="text/event-stream")


app.add_api_route("/chat", chat, methods=["POST"], response_model=None)

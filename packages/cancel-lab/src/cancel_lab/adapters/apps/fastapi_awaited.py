"""FastAPI, upstream's headers awaited before the response is made.

This is what a gateway does that wants to hand on upstream's status.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from .relay import URL, contents, new_client, payload

app = FastAPI()
client = new_client()


async def _frames(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for event in contents(response):
            yield f"data: {event}\n\n".encode()
    finally:
        await response.aclose()


async def chat(request: Request) -> StreamingResponse:
    """Relay one chat."""
    asked = client.build_request("POST", URL, json=payload(await request.json()))
    response = await client.send(asked, stream=True)
    return StreamingResponse(_frames(response), media_type="text/event-stream")


app.add_api_route("/chat", chat, methods=["POST"], response_model=None)

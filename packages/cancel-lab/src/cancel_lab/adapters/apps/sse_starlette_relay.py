"""Starlette with sse-starlette's EventSourceResponse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from .relay import URL, contents, new_client, payload

client = new_client()


async def _events(body: dict[str, Any]) -> AsyncIterator[dict[str, str]]:
    async with client.stream("POST", URL, json=payload(body)) as response:
        async for event in contents(response):
            yield {"data": event}  # noqa: ASYNC119


async def chat(request: Request) -> EventSourceResponse:
    """Relay one chat."""
    return EventSourceResponse(_events(await request.json()))


app = Starlette(routes=[Route("/chat", chat, methods=["POST"])])

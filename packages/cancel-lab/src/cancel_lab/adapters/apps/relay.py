"""What all comparison servers share, so that they differ only in what is compared."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx

URL = os.environ.get("UPSTREAM_URL", "http://127.0.0.1:9/api/v1") + "/chat/completions"


def new_client() -> httpx.AsyncClient:
    """Return a client without time limits and without a limit on connections."""
    return httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None))  # noqa: S113


def payload(body: dict[str, Any]) -> dict[str, Any]:
    """Return what to ask upstream for the body of a ``POST /chat``."""
    messages = [{"role": "user", "content": body["prompt"]}]
    return {"model": body["model"], "messages": messages, "stream": True}


async def contents(response: httpx.Response) -> AsyncIterator[str]:
    """Yield one JSON event per upstream chunk, then ``done``."""
    async for line in response.aiter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        for choice in json.loads(line[6:]).get("choices", []):
            content = choice.get("delta", {}).get("content")
            if content:
                yield json.dumps({"type": "content", "content": content})
    yield json.dumps({"type": "done"})

"""What tests of `/v1` send and how they read what comes back."""

from __future__ import annotations

import json
from typing import Any

import trio

from tests.support.world import Visit, World

COMPLETIONS = "/v1/chat/completions"
DONE = "[DONE]"


def ask(w: World, model: str = "simulator/fast", **fields: Any) -> Visit:
    """Begin a chat completion."""
    headers = fields.pop("headers", {})
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": model, "messages": messages, "stream": True, **fields}
    return w.visit(body, COMPLETIONS, headers=headers)


async def over(visit: Visit) -> float:
    """Wait for the request's end; return the time."""
    with trio.fail_after(1000):
        await visit.over.wait()
    return trio.current_time()


def payloads(visit: Visit) -> list[Any]:
    """The events' data, parsed; `[DONE]` as it is."""
    data = [
        block.removeprefix("data: ")
        for block in visit.body.decode().split("\n\n")
        if block.startswith("data: ")
    ]
    return [text if text == DONE else json.loads(text) for text in data]


def text_of(visit: Visit) -> str:
    """The content that arrived."""
    return "".join(
        choice["delta"].get("content") or ""
        for payload in payloads(visit)
        if payload != DONE
        for choice in payload.get("choices", ())
    )


def error_of(visit: Visit) -> dict[str, Any]:
    """The error of a refusal, in the shape that OpenAI's and OpenRouter's SDKs read."""
    body = visit.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "code", "type", "param", "metadata"}
    assert body["error"]["code"] == visit.status
    error: dict[str, Any] = body["error"]
    return error

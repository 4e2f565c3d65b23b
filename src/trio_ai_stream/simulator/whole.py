"""The schedule of an answer that is not streamed: one JSON body, when it is ready.

Pure. It takes as long as the stream would, so that a client which leaves meanwhile
can be measured too. The endings of a stream have their counterparts: a connection
that closes leaves half a body.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from trio_ai_stream.simulator.answer import Answer, compose
from trio_ai_stream.simulator.chat import ChatRequest
from trio_ai_stream.simulator.chunks import PROVIDER, clean
from trio_ai_stream.simulator.errors import error_object
from trio_ai_stream.simulator.faults import Faults
from trio_ai_stream.simulator.script import Generation
from trio_ai_stream.simulator.steps import End, Head, Pause, Phase, Step, Write


def whole_script(chat: ChatRequest, generation: Generation) -> Iterator[Step]:
    """Yield the steps of a single JSON answer, the head included."""
    faults = chat.faults
    answer = compose(chat)
    yield Pause((faults.headers_ms + faults.comments_ms + faults.first_token_ms) / 1000)
    if answer.count is None or faults.end in ("silence", "comments"):
        yield Pause(math.inf)
    yield Pause(faults.delay_ms * (answer.count or 0) / 1000)
    tokens = len(answer.reasoning) + (answer.count or 0)
    body = _damaged(whole_body(chat, answer, generation, tokens), faults)
    headers = [("Content-Type", "application/json")]
    if faults.generation_header:
        headers.append(("X-Generation-Id", generation.id))
    chunked = faults.framing == "close" or faults.end == "truncate"
    length = None if chunked else len(body)
    yield Head(200, tuple(headers), length, faults.interim)
    if faults.end in ("drop", "reset", "truncate"):
        yield Write(body[: len(body) // 2], 0, tokens, Phase.STREAMING)
        if faults.end != "truncate":
            yield End.FIN if faults.end == "drop" else End.RST
        return
    yield Write(body, 0, tokens, Phase.FINISHING)
    yield Pause(faults.done_ms / 1000)


def whole_body(
    chat: ChatRequest, answer: Answer, generation: Generation, tokens: int
) -> bytes:
    """Return the JSON of a single answer, or of the error in its place."""
    faults = chat.faults
    if faults.end == "error" and faults.shape != "choice":
        error = error_object(faults.code, faults.message)
        return msgspec.json.encode({"error": error})
    content = None
    if answer.count:
        content = clean("".join(answer.words))
    if faults.corrupt == "giant":
        content = "x" * faults.size
    choice: dict[str, Any] = {
        "logprobs": None,
        "finish_reason": answer.finish_reason,
        "native_finish_reason": answer.native_finish_reason(),
        "index": 0,
        "message": _message(answer, content),
    }
    if faults.end == "error":
        choice["finish_reason"] = "error"
        choice["error"] = error_object(faults.code, faults.message)
    return msgspec.json.encode(
        {
            "id": generation.id,
            "provider": PROVIDER,
            "model": chat.model,
            "object": "chat.completion",
            "created": generation.created,
            "system_fingerprint": None,
            "choices": [choice],
            "usage": answer.usage(tokens),
        }
    )


def _message(answer: Answer, content: str | None) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content,
        "refusal": answer.refusal,
        "reasoning": "".join(answer.reasoning) or None,
    }
    if answer.tool_calls:
        message["tool_calls"] = [
            {
                "index": index,
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(answer.tool_calls)
        ]
    return message


def _damaged(body: bytes, faults: Faults) -> bytes:
    if faults.corrupt == "json":
        return body[:-20]
    if faults.corrupt == "utf8":
        return body.replace(b'"content":"', b'"content":"\xc3\x28', 1)
    return body

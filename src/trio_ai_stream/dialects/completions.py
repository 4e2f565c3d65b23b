"""`/v1/chat/completions`: what OpenAI's SDKs and their many likes speak.

Errors: OpenAI's and OpenRouter's clients read `error.message`. OpenAI's SDKs read
`type` and `param` besides; OpenRouter's take nothing without an integer `code`, and in
a stream nothing that is no whole chunk (`openrouter` 1.3.84,
`components/chatstreamchunk.py`). OpenRouter names its errors in `metadata.error_type`,
so ours are named there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from trio_ai_stream.dialects.refusals import (
    OPENROUTER_FIELDS,
    error_headers,
    status_of,
)
from trio_ai_stream.upstream.chunks import (
    chunks_of_answer,
    encode,
    items_of_document,
    read_chunks,
)
from trio_ai_stream.wire.dialect import HEARTBEAT, Dialect, ErrorResponse, ParsedRequest
from trio_ai_stream.wire.events import Answer, Item, Raw
from trio_ai_stream.wire.model_requests import CompletionRequest, request_parser
from trio_ai_stream.wire.problems import Problem

DONE: Final = b"data: [DONE]\n\n"
_TYPES: Final[dict[int, str]] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    499: "cancelled",
}


def frames(items: Iterable[Item]) -> tuple[bytes, int]:
    """Return the frames of all chunks in `items`, joined, and their number.

    What the items say besides was for the relay; a comment is dropped.
    """
    payloads = [item.payload for item in items if type(item) is Raw]
    if not payloads:
        return b"", 0
    joined = b"\n\ndata: ".join(payloads)
    if any(b"\n" in payload for payload in payloads):
        # JSON may be laid out over several lines, and then each is a field of its own.
        joined = b"\n\ndata: ".join(p.replace(b"\n", b"\ndata: ") for p in payloads)
    return b"data: " + joined + b"\n\n", len(payloads)


class ChunkEncoder:
    """Writes `stream: true`: upstream's chunks as they are, then `[DONE]`."""

    __slots__ = ("_event_heartbeats", "_model", "_request_id")
    opening: ClassVar = b""
    held: ClassVar = (0, 0)
    content = staticmethod(frames)

    def __init__(self, asked: ParsedRequest, request_id: str, _upstream: str) -> None:
        # Not the request itself: it holds the body, which is let go of.
        self._event_heartbeats = asked.event_heartbeats
        self._model = asked.model
        self._request_id = request_id

    def heartbeat(self) -> bytes:
        """Return a comment, or where the settings ask for it an empty chunk."""
        if not self._event_heartbeats:
            return HEARTBEAT
        choice = {"index": 0, "delta": {}, "finish_reason": None}
        return self._chunk(self._request_id, choice)

    def ending(self, problem: Problem | None, answer: Answer) -> bytes:
        """Return `[DONE]`, or a chunk with the error."""
        return DONE if problem is None else self.error(problem, answer)

    def error(self, problem: Problem, answer: Answer) -> bytes:
        """Return a chunk with the error."""
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        name = answer.generation_id or self._request_id
        return self._chunk(name, choice, error=error_object(problem))

    def _chunk(self, name: str, choice: dict[str, Any], **more: Any) -> bytes:
        chunk = {
            "id": name,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self._model,
            "choices": [choice],
            **more,
        }
        return b"data: " + encode(chunk) + b"\n\n"


def error_object(problem: Problem) -> dict[str, Any]:
    """Return a problem in OpenAI's shape."""
    status = status_of(problem)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "message": problem.message,
        "code": status,
        "type": _TYPES.get(status, kind),
        "param": problem.field,
        "metadata": {"error_type": problem.error_type},
    }


def openai_error(problem: Problem, _request_id: str) -> ErrorResponse:
    """Return a refusal in OpenAI's shape."""
    body = msgspec.json.encode({"error": error_object(problem)})
    return ErrorResponse(status_of(problem), error_headers(problem), body)


COMPLETIONS: Final = Dialect(
    path="/v1/chat/completions",
    upstream_path="/chat/completions",
    raw=True,
    forwarded=OPENROUTER_FIELDS,
    parse=request_parser(CompletionRequest),
    read_events=read_chunks,
    read_document=items_of_document,
    as_stream=chunks_of_answer,
    encoder=ChunkEncoder,
    error=openai_error,
)

"""Server-sent events as `POST /chat` writes them: the seed's JSON, a line each.

JSON escapes newlines, so any text survives in one line; U+2028 and its like are
ordinary characters to an SSE parser (WHATWG HTML, section 9.2.6) and stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from trio_ai_stream.wire.events import Item, Reasoning
from trio_ai_stream.wire.problems import Problem

HEARTBEAT: Final = b": heartbeat\n\n"
CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"

_encode = msgspec.json.Encoder().encode


def json_text(text: str) -> bytes:
    """Return `text` as a JSON string.

    A lone surrogate, which UTF-8 cannot carry, leaves as the escape that it came as.
    """
    try:
        return _encode(text)
    except UnicodeEncodeError:
        return json.dumps(text).encode("ascii")


class ChatEncoder:
    """Encodes one stream's events; `request_id` is in each.

    The frame around a piece of content is prepared once, because it is written for
    every token: a frame costs one JSON string and one join.
    """

    def __init__(self, request_id: str, *, include_reasoning: bool = False) -> None:
        self._tail = b',"request_id":' + _encode(request_id) + b',"type":'
        self._content_tail = self._tail + b'"content"}\n\n'
        self._include_reasoning = include_reasoning

    def content(self, items: Iterable[Item]) -> tuple[bytes, int]:
        """Return the frames of all content in `items`, joined, and their number."""
        tail = self._content_tail
        parts: list[bytes] = []
        for item in items:
            if type(item) is str:
                parts.append(b'data: {"content":')
                parts.append(json_text(item))
                parts.append(tail)
            elif self._include_reasoning and type(item) is Reasoning:
                parts.append(self._frame(item.text, "reasoning", {}))
                parts += (b"", b"")
        return b"".join(parts), len(parts) // 3

    def connected(self, *, model: str, upstream: str) -> bytes:
        """Return the first event: the stream exists, upstream has not answered yet."""
        return self._frame("", "connected", {"model": model, "upstream": upstream})

    def done(
        self,
        *,
        finish_reason: str | None,
        usage: Mapping[str, Any] | None,
        generation_id: str | None,
    ) -> bytes:
        """Return the terminal event of an answer that is complete."""
        more = {
            "finish_reason": finish_reason,
            "usage": usage,
            "generation_id": generation_id,
        }
        return self._frame("", "done", more)

    def error(self, problem: Problem) -> bytes:
        """Return the terminal event of a stream that failed; `content` says how."""
        more = {
            "error_type": problem.error_type,
            "code": problem.status,
            "retryable": problem.retryable,
            "retry_after": problem.retry_after,
        }
        return self._frame(problem.message, "error", more)

    def _frame(self, content: str, type_: str, more: Mapping[str, Any]) -> bytes:
        extra = _encode(more)[1:] if more else b"}"
        comma = b"," if more else b""
        head = b'data: {"content":' + json_text(content) + self._tail
        return head + _encode(type_) + comma + extra + b"\n\n"

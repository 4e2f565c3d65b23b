"""Server-sent events as `POST /chat` writes them: the original Go server's JSON.

JSON escapes newlines, so any text survives in one line; U+2028 and its like are
ordinary characters to an SSE parser (WHATWG HTML, section 9.2.6) and stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from trio_ai_stream.wire.events import Answer, Item, Reasoning, ToolCallPiece
from trio_ai_stream.wire.problems import Problem

HEARTBEAT: Final = b": heartbeat\n\n"
CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"

_HEAD: Final = b'data: {"content":'
_UNWRITABLE: Final = (UnicodeEncodeError, RecursionError)

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


def json_text(text: str) -> bytes:
    """Return `text` as a JSON string.

    A lone surrogate, which UTF-8 cannot carry, leaves as the escape that it came as.
    """
    try:
        return _encode(text)
    except UnicodeEncodeError:
        return json.dumps(text).encode("ascii")


def _object(fields: Mapping[str, Any]) -> bytes:
    """Return `fields` as a JSON object.

    A text with a lone surrogate leaves as it came. Another value out of upstream's JSON
    that cannot be written again becomes null: the event comes all the same.
    """
    try:
        return _encode(fields)
    except _UNWRITABLE:
        return _encode({name: _writable(value) for name, value in fields.items()})


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return msgspec.Raw(json_text(value))
    try:
        _encode(value)
    except _UNWRITABLE:
        return None
    return value


class ChatEncoder:
    """Encodes one stream's events; `request_id` is in each.

    The frame around a piece of content is prepared once, because it is written for
    every token, and a block of content is encoded in one call of msgspec's.
    """

    def __init__(
        self,
        request_id: str,
        *,
        include_reasoning: bool = False,
        include_tool_calls: bool = False,
    ) -> None:
        self._common = b',"request_id":' + _encode(request_id) + b',"type":'
        self._tail = self._common + b'"content"}\n\n'
        self._seam = self._tail + _HEAD
        self._include_reasoning = include_reasoning
        self._include_tool_calls = include_tool_calls
        self.opening = b""

    def content(self, items: Iterable[Item]) -> tuple[bytes, int]:
        """Return the frames of what the client gets of `items`, and their number."""
        if self._include_reasoning or self._include_tool_calls:
            return self._with_more(items)
        return self._contents([item for item in items if type(item) is str])

    def _contents(self, texts: list[str]) -> tuple[bytes, int]:
        """Encode all texts at once: a line each, and each line end is a seam."""
        if not texts:
            return b"", 0
        try:
            lines = _encode_lines(texts)
        except UnicodeEncodeError:
            lines = b"\n".join([*map(json_text, texts), b""])
        return _HEAD + lines[:-1].replace(b"\n", self._seam) + self._tail, len(texts)

    def _with_more(self, items: Iterable[Item]) -> tuple[bytes, int]:
        frames: list[bytes] = []
        for item in items:
            if type(item) is str:
                frames.append(self._contents([item])[0])
            elif type(item) is Reasoning and self._include_reasoning:
                frames.append(self._frame(item.text, "reasoning", {}))
            elif type(item) is ToolCallPiece and self._include_tool_calls:
                frames.append(
                    self._frame("", "tool_call", msgspec.structs.asdict(item))
                )
        return b"".join(frames), len(frames)

    def connected(self, *, model: str, upstream: str) -> bytes:
        """Return the first event: the stream exists, upstream has not answered yet."""
        return self._frame("", "connected", {"model": model, "upstream": upstream})

    def heartbeat(self) -> bytes:
        """Return a comment."""
        return HEARTBEAT

    def ending(self, problem: Problem | None, answer: Answer) -> bytes:
        """Return `error`, or `done`."""
        if problem is not None:
            return self.error(problem, answer)
        return self.done(
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            generation_id=answer.generation_id,
        )

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

    def error(self, problem: Problem, _answer: Answer) -> bytes:
        """Return the terminal event of a stream that failed; `content` says how."""
        more = {
            "error_type": problem.error_type,
            "code": problem.status,
            "retryable": problem.retryable,
            "retry_after": problem.retry_after,
        }
        return self._frame(problem.message, "error", more)

    def _frame(self, content: str, type_: str, more: Mapping[str, Any]) -> bytes:
        extra = _object(more)[1:] if more else b"}"
        comma = b"," if more else b""
        head = _HEAD + json_text(content) + self._common
        return head + _encode(type_) + comma + extra + b"\n\n"

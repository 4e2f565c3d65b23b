"""One `chat.completion.chunk` of OpenRouter, decoded into items; pure.

Lenient where OpenRouter's documentation and field reports are: `error` comes before
`choices`, `choices` may be empty, `code` is a number or a word, usage may ride on any
chunk (https://openrouter.ai/docs/api_reference/streaming).
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from trio_ai_stream.upstream.errors import failure_of
from trio_ai_stream.wire.events import (
    Done,
    Finish,
    Item,
    Raw,
    Reasoning,
    ToolCall,
    Usage,
)


class _Delta(Struct):
    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None
    refusal: str | None = None


class _Choice(Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None
    error: Any = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode
_TOOL_CALL: Final = ToolCall()
_Shape = TypeVar("_Shape", bound=Struct)


def items_of_chunk(payload: bytes, items: list[Item]) -> None:
    """Append what one chunk says to `items`.

    :raises ValueError: when it is not JSON, or not a chunk.
    """
    try:
        chunk = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        chunk = _decode_leniently(payload, _Chunk)
    if chunk.error is not None:
        items.append(failure_of(chunk.error))
        return
    for choice in chunk.choices or ():
        if choice.error is not None:
            items.append(failure_of(choice.error))
            return
        delta = choice.delta
        if delta is not None:
            if delta.content:
                items.append(delta.content)
            if delta.reasoning:
                items.append(Reasoning(delta.reasoning))
            if delta.refusal:
                items.append(delta.refusal)
            if delta.tool_calls:
                items.append(_TOOL_CALL)
        if choice.finish_reason is not None:
            items.append(Finish(choice.finish_reason))
    if chunk.usage is not None:
        items.append(Usage(chunk.usage))


class _WholeMessage(Struct):
    content: Any = None


class _WholeChoice(Struct):
    message: _WholeMessage | None = None
    finish_reason: str | None = None
    error: Any = None


class _Document(Struct):
    choices: list[_WholeChoice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode_document = msgspec.json.Decoder(_Document).decode


def items_of_document(body: bytes) -> list[Item]:
    """Return what a whole answer (`stream: false`) says, its bytes first as `Raw`.

    :raises ValueError: when it is not JSON, or not a chat completion.
    """
    try:
        document = _decode_document(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = _decode_leniently(body, _Document)
    choices = document.choices or []
    errors = [document.error, *(choice.error for choice in choices)]
    for error in errors:
        if error is not None:
            return [failure_of(error)]
    items: list[Item] = [Raw(body)]
    for choice in choices:
        if choice.message is not None and isinstance(choice.message.content, str):
            items.append(choice.message.content)
        if choice.finish_reason is not None:
            items.append(Finish(choice.finish_reason))
    if document.usage is not None:
        items.append(Usage(document.usage))
    items.append(Done())
    return items


def _decode_leniently(payload: bytes, shape: type[_Shape]) -> _Shape:
    """Decode JSON with half a surrogate pair: legal, refused by the fast decoder."""
    return msgspec.convert(json.loads(payload), shape)

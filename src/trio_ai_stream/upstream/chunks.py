"""One `chat.completion.chunk` of OpenRouter, decoded into items; pure.

What nearly every chunk is made of is decoded in one step. Whatever does not fit it is
looked at again, field by field, by `odd_chunks.py`: `error` comes before `choices`,
`choices` may be empty, usage may ride on any chunk
(https://openrouter.ai/docs/api_reference/streaming).
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
from msgspec import Struct

from trio_ai_stream.upstream.odd_chunks import (
    chunks_of_answer,
    failure_in,
    items_of_answer,
    odd_chunk,
)
from trio_ai_stream.wire.events import (
    Choice,
    Done,
    Finish,
    Identity,
    Item,
    Progress,
    Raw,
    Reasoning,
    Usage,
)


class _Delta(Struct):
    """The fields that are decoded at once; one that says `None` leaves it to others."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: msgspec.Raw | None = None
    tool_calls: msgspec.Raw | None = None
    refusal: None = None
    audio: None = None
    images: None = None
    function_call: None = None
    annotations: None = None


class _Choice(Struct):
    delta: _Delta
    index: int = 0
    finish_reason: str | None = None
    error: None = None


class _Chunk(Struct):
    choices: list[_Choice]
    usage: dict[str, Any] | None = None
    error: None = None


_decode = msgspec.json.Decoder(_Chunk).decode
_PROGRESS: Final = Progress()
_NOTHING: Final = frozenset({b"null", b"[]", b"{}", b'""'})


def items_of_chunk(payload: bytes, items: list[Item], *, raw: bool = False) -> None:
    """Append what one chunk says to `items`, with `raw` its payload first.

    `payload` is UTF-8. What is JSON, but no chunk, says nothing.

    :raises ValueError: when it is not JSON.
    :raises RecursionError: when it is nested too deeply.
    """
    try:
        chunk = _decode(payload)
    except msgspec.MsgspecError:
        items += odd_chunk(payload, raw=raw)
        return
    choices = chunk.choices
    if not choices and chunk.usage is None:
        items += odd_chunk(payload, raw=raw)
        return
    start = len(items)
    if raw:
        items.append(Raw(payload))
    for choice in choices:
        index = choice.index
        if index:
            items.append(Choice(index))
        delta = choice.delta
        if delta.content:
            items.append(delta.content)
        thought = delta.reasoning or delta.reasoning_content
        if thought:
            items.append(Reasoning(thought))
        elif delta.reasoning_details and _says(delta.reasoning_details):
            items[start:] = odd_chunk(payload, raw=raw)
            return
        if delta.tool_calls and _says(delta.tool_calls):
            items.append(_PROGRESS)
        finish = choice.finish_reason
        if finish == "error":
            items[start:] = odd_chunk(payload, raw=raw)
            return
        if finish:
            items.append(Finish(finish, index))
    if chunk.usage is not None:
        items.append(Usage(chunk.usage))


def _says(value: msgspec.Raw) -> bool:
    return bytes(value) not in _NOTHING


def items_of_document(body: bytes) -> list[Item]:
    """Return what a whole answer (`stream: false`) says, its bytes first as `Raw`.

    :raises ValueError: when it is not JSON, or neither a chat completion nor an error.
    :raises RecursionError: when it is nested too deeply.
    """
    body, document = _load(body)
    failure = failure_in(document)
    if failure is not None:
        return [failure]
    return [Raw(body), *_name(document), *items_of_answer(document), Done()]


def items_of_unstreamed(body: bytes, *, raw: bool) -> list[Item]:
    """Return what a whole answer says where a stream was asked for.

    With `raw` it comes as the payloads of a stream. *Errors:* as `items_of_document`.
    """
    _, document = _load(body)
    failure = failure_in(document)
    if failure is not None:
        return [failure]
    items: list[Item] = [*_name(document)]
    for payload in chunks_of_answer(document):
        items_of_chunk(payload, items, raw=raw)
    return [*items, Done()]


def _name(document: dict[str, Any]) -> list[Item]:
    name = document.get("id")
    return [Identity(name)] if isinstance(name, str) and name else []


def _load(body: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return a document as UTF-8 and as what it says."""
    try:
        document = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        # With NaN, half a surrogate pair, a BOM or a byte that is not UTF-8.
        body = body.decode("utf-8", "replace").removeprefix("\ufeff").encode()
        document = json.loads(body)
    if isinstance(document, dict) and (
        document.get("choices") or failure_in(document) is not None
    ):
        return body, document
    raise ValueError("expected a chat completion, with choices")

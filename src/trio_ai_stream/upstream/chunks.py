"""One `chat.completion.chunk` of OpenRouter, decoded into items; pure.

What nearly every chunk is made of is decoded in one step. Whatever does not fit it is
looked at again, field by field, by `odd_chunks.py`: `error` comes before `choices`,
`choices` may be empty, usage may ride on any chunk
(https://openrouter.ai/docs/api_reference/streaming).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from trio_ai_stream.upstream.odd_chunks import (
    chunks_of_answer,
    failure_in,
    items_of_answer,
    odd_chunk,
)
from trio_ai_stream.wire.events import (
    Done,
    Finish,
    Identity,
    Item,
    Progress,
    Raw,
    Reasoning,
    Usage,
)

_First = Annotated[int, Meta(ge=0, le=0)]
_ABSENT: Final = msgspec.Raw(b"null")
_NOTHING: Final = frozenset({b"null", b"[]", b"{}", b'""'})
_PROGRESS: Final = Progress()


class _Delta(Struct, gc=False):
    """The fields that are decoded at once; one that says `None` leaves it to others."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_details: msgspec.Raw = _ABSENT
    tool_calls: msgspec.Raw = _ABSENT
    reasoning_content: None = None
    refusal: None = None
    audio: None = None
    images: None = None
    function_call: None = None
    annotations: None = None


class _Choice(Struct, gc=False):
    delta: _Delta
    index: _First = 0
    finish_reason: str | None = None
    error: None = None


class _Chunk(Struct, gc=False):
    choices: list[_Choice]
    usage: dict[str, Any] | None = None
    error: None = None


_decode = msgspec.json.Decoder(_Chunk).decode


def read_chunks(
    payloads: Iterator[bytes], items: list[Item], raw: bool
) -> bytes | None:
    """Append what chunks say to `items`, with `raw` each one's payload before it.

    What is JSON, but no chunk, says nothing. Returns the first payload that is no JSON,
    with those after it still to come; None if there is none.
    """
    # One loop over a whole block: a call for each event would be a tenth of its cost.
    for payload in payloads:
        try:
            chunk = _decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            try:
                items += odd_chunk(payload, raw=raw)
            except (ValueError, RecursionError):
                return payload
            continue
        start = len(items)
        if raw:
            items.append(Raw(payload))
        for choice in chunk.choices:
            delta = choice.delta
            if delta.content:
                items.append(delta.content)
            if delta.reasoning:
                items.append(Reasoning(delta.reasoning))
            elif delta.reasoning_details is not _ABSENT and _says(
                delta.reasoning_details
            ):
                break
            if delta.tool_calls is not _ABSENT and _says(delta.tool_calls):
                items.append(_PROGRESS)
            finish = choice.finish_reason
            if finish:
                if finish == "error":
                    break
                items.append(Finish(finish))
        else:
            if chunk.usage is not None:
                items.append(Usage(chunk.usage))
                continue
            if chunk.choices:
                continue
        items[start:] = odd_chunk(payload, raw=raw)
    return None


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
    read_chunks(iter(chunks_of_answer(document)), items, raw)
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

"""A `chat.completion.chunk`, or a whole answer, decoded into items; pure.

What nearly every chunk is made of is decoded in one step. Whatever does not fit it is
looked at again, field by field: `error` comes before `choices`, `choices` may be empty,
usage may ride on any chunk (https://openrouter.ai/docs/api_reference/streaming), and
other upstreams send lists for texts, `[]` for `{}`, numbers for words, and errors in
several dialects. What is understood becomes items. What is not says nothing, and the
clients of `/v1` get it all the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from trio_ai_stream.upstream.upstream_errors import failure_of
from trio_ai_stream.wire.events import (
    Choice,
    Done,
    Failure,
    Finish,
    Identity,
    Item,
    Progress,
    Raw,
    Reasoning,
    ToolCallPiece,
    Usage,
)
from trio_ai_stream.wire.problems import Fault, Problem

# More answers at a time nobody can ask for (OpenAI's API reference, `n`); a chunk that
# holds millions would block the loop while they are read.
MAX_CHOICES: Final = 128
_REASONING: Final = ("reasoning", "reasoning_content", "reasoning_details")
# So many parts has no text: each costs the loop a step.
MAX_PARTS: Final = 50_000
_TEXTS: Final = ("content", "refusal", *_REASONING)
# What a model may send besides plain text; all of it is progress.
_WORK: Final = (
    *("tool_calls", "function_call", "audio", "images", "annotations"),
    *_REASONING,
)


def as_utf8(data: bytes) -> bytes:
    """Return `data` with U+FFFD for what is not UTF-8, as every SSE client reads it."""
    return data if data.isascii() else data.decode("utf-8", "replace").encode()


def load(data: bytes) -> Any:
    """Return what JSON says, also with NaN, half a character or what is not UTF-8.

    :raises ValueError: when it is not JSON.
    :raises RecursionError: when it is nested too deeply.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return json.loads(data.decode("utf-8", "replace"))


def object_of(body: bytes) -> dict[str, Any]:
    """Return a JSON object.

    :raises ValueError: when it is none.
    :raises RecursionError: when it is nested too deeply.
    """
    document = load(body)
    if type(document) is not dict:
        raise ValueError("expected a JSON object")
    return document


def odd_chunk(payload: bytes, *, raw: bool = False) -> list[Item]:
    """Return what one chunk says, with `raw` its payload first.

    A chunk that holds an error is not passed on; if it holds text as well, a chunk with
    only that is.

    :raises ValueError: when it is not JSON, or has far more parts than anybody means.
    :raises RecursionError: when it is nested too deeply.
    """
    if payload.count(b"[") > 2 * MAX_PARTS:  # lists that are slow to make already
        raise ValueError("expected fewer lists")
    chunk = load(payload)
    items = list(_items(chunk))
    failure = failure_in(chunk)
    if failure is None:
        return [Raw(payload), *items] if raw else items
    items = [item for item in items if not isinstance(item, Usage)]
    usage = _final_usage(chunk)
    if all(isinstance(item, Choice | Finish) for item in items):
        return [*usage, failure]
    if raw:
        items.insert(0, Raw(encode(_without_error(chunk))))
    return [*items, *usage, failure]


def chunks_of_answer(document: dict[str, Any]) -> list[bytes]:
    """Return a whole chat completion as the payloads of a stream.

    Usage comes in a chunk of its own, as clients expect it of a stream.
    """
    common = {k: v for k, v in document.items() if k not in {"choices", "usage"}}
    common["object"] = "chat.completion.chunk"
    choices = [_as_delta(choice) for choice in _objects(document.get("choices"))]
    chunks = [{**common, "choices": choices}]
    if document.get("usage"):
        chunks.append({**common, "choices": [], "usage": document["usage"]})
    return [encode(chunk) for chunk in chunks]


def failure_in(chunk: Any) -> Failure | None:
    """Return the error that a chunk or a document holds, in any dialect; else None.

    An `error` that is false (`""`, `{}`, `null`) is none.
    """
    if not isinstance(chunk, dict):
        return None
    choices = _objects(chunk.get("choices"))[:MAX_CHOICES]
    for holder in (chunk, *choices):
        if holder.get("error"):
            return failure_of(holder["error"])
    for choice in choices:
        if choice.get("finish_reason") == "error":
            return _finished_in_error(choice.get("native_finish_reason"))
    return None if choices else _failure_in_other_dialect(chunk)


def failure_of_error_event(data: bytes) -> Failure:
    """Return what an SSE event of the type `error` says, JSON or not."""
    try:
        said = load(data)
    except (ValueError, RecursionError):
        said = data.decode("utf-8", "replace")
    return failure_in(said) or failure_of(said)


def _failure_in_other_dialect(chunk: dict[str, Any]) -> Failure | None:
    """Read an error object without `error` around it (vLLM, FastAPI, MiniMax, …)."""
    for name in ("error_message", "detail"):
        if chunk.get(name):
            code = chunk.get("code", chunk.get("error_code"))
            return failure_of({**chunk, "message": chunk[name], "code": code})
    named = "error" in (chunk.get("object"), chunk.get("type"))
    if named or ("code" in chunk and chunk.get("message")):
        return failure_of(chunk)
    return None


def _finished_in_error(native: object) -> Failure:
    """Return the failure of a `finish_reason` that is `error`, with no error beside."""
    message = "upstream failed in mid-stream"
    if isinstance(native, str) and re.fullmatch(r"[\w.-]{1,60}", native, re.ASCII):
        message += f": {native}"
    problem = Problem(502, "upstream_failed", message, Fault.UPSTREAM, retryable=True)
    return Failure(problem, "finish_reason is error")


def _items(chunk: Any) -> Iterator[Item]:
    if not isinstance(chunk, dict):
        return
    choices = _objects(chunk.get("choices"))[:MAX_CHOICES]
    _check_parts(choices)
    for choice in choices:
        index = choice.get("index")
        if type(index) is not int or not 0 <= index < MAX_CHOICES:
            index = 0
        if index:
            yield Choice(index)
        said = choice.get("delta") or choice.get("message")
        yield from _said(said if isinstance(said, dict) else {})
        yield from _contents(choice.get("text"))  # of the older completions API
        reason = choice.get("finish_reason")
        if reason and reason != "error":
            yield Finish(str(reason), index)
    usage = chunk.get("usage")
    if usage and isinstance(usage, dict):
        yield Usage(usage)


def _check_parts(choices: list[dict[str, Any]]) -> None:
    """Look at how many parts the texts of all choices have together.

    :raises ValueError: more than anybody means; reading them would block the loop.
    """
    left = MAX_PARTS
    todo: list[Any] = []
    for choice in choices:
        said = choice.get("delta") or choice.get("message")
        todo.append(choice.get("text"))
        if isinstance(said, dict):
            todo += [said.get(name) for name in _TEXTS]
    while todo:
        one = todo.pop()
        if isinstance(one, dict | list):
            left -= len(one)
            if left < 0:
                raise ValueError(f"expected a text of at most {MAX_PARTS} parts")
            todo += one.values() if isinstance(one, dict) else one


def _said(said: dict[str, Any]) -> Iterator[Item]:
    yield from _contents(said.get("content"))
    yield from _contents(said.get("refusal"))
    thought = next(filter(None, (_text(said.get(name)) for name in _REASONING)), "")
    calls = _tool_calls_in(said.get("tool_calls"))
    if thought:
        yield Reasoning(thought)
    elif not calls and any(said.get(name) for name in _WORK):
        yield Progress()
    yield from calls


def _tool_calls_in(value: Any) -> list[ToolCallPiece]:
    """Return the pieces of tool calls in a value; none where it is of another shape."""
    try:
        return _pieces(msgspec.convert(value or [], _ToolCalls))
    except (msgspec.ValidationError, UnicodeEncodeError):  # half a surrogate pair
        return []


def _contents(value: Any) -> Iterator[Item]:
    """Read a content: a text, or a list of parts of which some are texts."""
    for part in value if isinstance(value, list) else [value]:
        text = _text(part)
        if isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
            yield Reasoning(text)
        elif text:
            yield text
        elif part:
            yield Progress()


def _text(value: Any) -> str:
    """Return the text in a value that is one, or in the fields that may hold it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_text, value))
    if isinstance(value, dict):
        names = ("text", "thinking", "summary")
        return next(filter(None, (_text(value.get(name)) for name in names)), "")
    return ""


def _without_error(chunk: dict[str, Any]) -> dict[str, Any]:
    choices = [
        {
            name: None if name == "finish_reason" and value == "error" else value
            for name, value in choice.items()
            if name != "error"
        }
        for choice in _objects(chunk.get("choices"))
    ]
    kept = {name: value for name, value in chunk.items() if name != "error"}
    return {**kept, "choices": choices}


def _as_delta(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    delta = dict(message) if isinstance(message, dict) else {}
    if isinstance(calls := delta.get("tool_calls"), list):
        # In a stream a fragment of a tool call says to which one it belongs.
        delta["tool_calls"] = [
            {"index": index, **call} if isinstance(call, dict) else call
            for index, call in enumerate(calls)
        ]
    kept = {name: value for name, value in choice.items() if name != "message"}
    return {**kept, "delta": delta}


def encode(value: Any) -> bytes:
    """Return `value` as JSON, whatever texts are in it."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can carry
        return json.dumps(value).encode()


def _objects(value: Any) -> list[dict[str, Any]]:
    values = value if isinstance(value, list) else []
    return [one for one in values if isinstance(one, dict)]


_First = Annotated[int, Meta(ge=0, le=0)]
_ABSENT: Final = msgspec.Raw(b"null")
_NOTHING: Final = frozenset({b"null", b"[]", b"{}", b'""'})
_PROGRESS: Final = Progress()


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, gc=False):
    function: _Function
    index: Annotated[int, Meta(ge=0, lt=MAX_CHOICES)] | None = None
    id: str | None = None


_ToolCalls = Annotated[list[_Call], Meta(max_length=MAX_CHOICES)]


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
_decode_calls = msgspec.json.Decoder(_ToolCalls).decode


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
                items += [_PROGRESS] if raw else _calls(delta.tool_calls)
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
        try:
            items[start:] = odd_chunk(payload, raw=raw)
        except (ValueError, RecursionError):
            del items[start:]
            return payload
    return None


def _calls(value: msgspec.Raw) -> list[ToolCallPiece] | list[Progress]:
    """Return the pieces of tool calls, or progress where they are of another shape."""
    try:
        try:
            calls = _decode_calls(value)
        except UnicodeDecodeError:  # the byte becomes U+FFFD, as in all other texts
            calls = _decode_calls(as_utf8(bytes(value)))
        return _pieces(calls) or [_PROGRESS]
    except (msgspec.MsgspecError, RecursionError):
        return [_PROGRESS]


def _pieces(calls: list[_Call]) -> list[ToolCallPiece]:
    """Return the pieces; one that does not say its index has that of its place."""
    return [
        ToolCallPiece(
            place if call.index is None else call.index,
            call.id,
            call.function.name,
            call.function.arguments or "",
        )
        for place, call in enumerate(calls)
    ]


def _says(value: msgspec.Raw) -> bool:
    return bytes(value) not in _NOTHING


def items_of_document(body: bytes) -> list[Item]:
    """Return what a whole answer (`stream: false`) says, its bytes first as `Raw`.

    :raises ValueError: when it is not JSON, or neither a chat completion nor an error.
    :raises RecursionError: when it is nested too deeply.
    """
    document = object_of(body)
    if failed := items_of_failed(document):
        return failed
    if not document.get("choices"):
        raise ValueError("expected a chat completion, with choices")
    return [Raw(as_utf8(body)), *identity_of(document), *_items(document), Done()]


def items_of_failed(document: dict[str, Any]) -> list[Item]:
    """Return what a document with an error says, the error last; else nothing."""
    failure = failure_in(document)
    if failure is None:
        return []
    return [*identity_of(document), *_final_usage(document), failure]


def identity_of(document: dict[str, Any]) -> list[Item]:
    """Return the id of a whole answer, and who gave it, if it says so."""
    name, provider = document.get("id"), document.get("provider")
    if not isinstance(name, str) or not name:
        return []
    return [Identity(name, provider if isinstance(provider, str) else None)]


def _final_usage(failed: dict[str, Any]) -> list[Item]:
    """Return what something costs all the same, if that stands beside its error."""
    usage = failed.get("usage")
    return [Usage(usage, final=True)] if usage and isinstance(usage, dict) else []

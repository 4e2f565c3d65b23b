"""`/v1/messages`: Anthropic's Messages API, which its SDKs and Claude Code speak.

https://platform.claude.com/docs/en/api/messages, and "Streaming messages" there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from trio_ai_stream.dialects.named_events import (
    COMMENT,
    UNNAMED,
    UNREADABLE,
    NamedEventEncoder,
    data_of,
    event,
    event_reader,
    note_failure,
)
from trio_ai_stream.dialects.refusals import (
    OPENROUTER_FIELDS,
    error_headers,
    status_of,
)
from trio_ai_stream.upstream.chunks import (
    as_utf8,
    encode,
    identity_of,
    items_of_failed,
    object_of,
)
from trio_ai_stream.wire.dialect import (
    Dialect,
    ErrorResponse,
    ParsedRequest,
    RequestLimits,
)
from trio_ai_stream.wire.events import (
    Answer,
    Done,
    Finish,
    Identity,
    Item,
    Progress,
    Raw,
    Reasoning,
    Stopped,
    Usage,
)
from trio_ai_stream.wire.model_requests import (
    UNTHREADED,
    MessagesRequest,
    request_parser,
)
from trio_ai_stream.wire.problems import Problem

_PROGRESS: Final = Progress()
# An empty piece of a block, by the block's type and by that of its pieces.
_TEXT: Final = {"type": "text_delta", "text": ""}
_THINKING: Final = {"type": "thinking_delta", "thinking": ""}
_INPUT: Final = {"type": "input_json_delta", "partial_json": ""}
_TOOLS: Final = ("tool_use", "server_tool_use", "mcp_tool_use")
_EMPTY: Final[dict[str, dict[str, str]]] = {
    **dict.fromkeys(("text", "text_delta"), _TEXT),
    **dict.fromkeys(("thinking", "thinking_delta"), _THINKING),
    **dict.fromkeys((*_TOOLS, "input_json_delta"), _INPUT),
}
_TYPES: Final[dict[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class _BlockDelta(Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    stop_reason: str | None = None


class _MessageStart(Struct, gc=False):
    id: str | None = None
    provider: str | None = None
    usage: dict[str, Any] | None = None


class _MessageEvent(Struct, gc=False):
    type: str = ""
    delta: _BlockDelta | None = None
    message: _MessageStart | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class _PieceKind(Struct, gc=False):
    type: str


class _Piece(Struct, gc=False):
    """The event that begins a block, or continues it."""

    index: int
    delta: _PieceKind | None = None
    content_block: _PieceKind | None = None


_decode_piece = msgspec.json.Decoder(_Piece).decode


def _say(said: _MessageEvent, items: list[Item]) -> None:
    kind, delta = said.type, said.delta
    if kind == "content_block_delta":
        if delta is None:  # of a shape that nobody knows
            items.append(_PROGRESS)
        elif delta.text:
            items.append(delta.text)
        elif delta.thinking:
            items.append(Reasoning(delta.thinking))
        elif delta.type not in {"text_delta", "thinking_delta"}:
            items.append(_PROGRESS)
    elif kind == "ping":
        items.append(COMMENT)
    elif kind == "message_start" and said.message is not None:
        if said.message.id:
            items.append(Identity(said.message.id, said.message.provider))
        if said.message.usage:
            items.append(Usage(said.message.usage))
    elif kind == "message_delta":
        if said.usage:
            items.append(Usage(said.usage))
        if delta is not None and delta.stop_reason:
            items.append(Stopped(delta.stop_reason))
    elif kind == "message_stop":
        items += [Finish(), Done(ends=False)]
    elif kind in UNNAMED or said.error:
        note_failure(items)


def read_message(body: bytes) -> list[Item]:
    """Return what a whole message says, its bytes first.

    :raises ValueError: when it is neither a message nor an error.
    """
    document = object_of(body)
    if failed := items_of_failed(document):
        return failed
    content = document.get("content")
    if document.get("type") != "message" or not isinstance(content, list):
        raise ValueError("expected a message")
    items: list[Item] = [Raw(as_utf8(body)), *identity_of(document)]
    for block in content:
        part = block if isinstance(block, dict) else {}
        if isinstance(text := part.get("text"), str) and text:
            items.append(text)
        elif isinstance(text := part.get("thinking"), str) and text:
            items.append(Reasoning(text))
        else:
            items.append(_PROGRESS)
    if isinstance(document.get("usage"), dict):
        items.append(Usage(document["usage"]))
    return [*items, Finish(str(document.get("stop_reason") or "")), Done()]


def read_count(body: bytes) -> list[Item]:
    """Return what `count_tokens` says; it costs nothing.

    :raises ValueError: when it is neither a count nor an error.
    """
    document = object_of(body)
    if failed := items_of_failed(document):
        return failed
    if type(document.get("input_tokens")) is not int:
        raise ValueError("expected input_tokens")
    free = Usage({"prompt_tokens": 0, "completion_tokens": 0, "cost": 0.0})
    return [Raw(body), free, Finish(), Done()]


def _as_stream(message: dict[str, Any]) -> list[bytes]:
    """Return a whole message as the events of a stream."""
    return [event(said).removesuffix(b"\n\n") for said in _events_of(message)]


def _events_of(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    stop = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    start = {**message, "content": [], **dict.fromkeys(stop)}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(message["content"]):
        empty, deltas = _pieces_of(block if isinstance(block, dict) else {})
        at = {"index": index}
        yield {"type": "content_block_start", **at, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", **at, "delta": delta}
        yield {"type": "content_block_stop", **at}
    yield {"type": "message_delta", "delta": stop, "usage": message.get("usage") or {}}
    yield {"type": "message_stop"}


def _pieces_of(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a block as it begins, and what fills it; another kind begins whole."""
    match block:
        case {"type": "text", "text": str(text)}:
            return {**block, "text": ""}, [{"type": "text_delta", "text": text}]
        case {"type": "thinking", "thinking": str(text)}:
            deltas = [{"type": "thinking_delta", "thinking": text}]
            if sign := block.get("signature"):
                deltas.append({"type": "signature_delta", "signature": sign})
            return {**block, "thinking": "", "signature": ""}, deltas
        case {"type": "tool_use", "input": dict(given)}:
            partial = encode(given).decode()
            delta = {"type": "input_json_delta", "partial_json": partial}
            return {**block, "input": {}}, [delta]
    return block, []


class MessageEncoder(NamedEventEncoder):
    """Writes one stream of a message's events."""

    __slots__ = ()

    def heartbeat(self) -> bytes:
        """Return a `ping`, and an empty piece of the block that is open, if one is."""
        ping = event({"type": "ping"})
        try:
            said = _decode_piece(data_of(self._last))
        except UNREADABLE:  # nothing has been said yet, or no piece of a block
            return ping
        part = said.delta or said.content_block
        empty = _EMPTY.get(part.type) if part is not None else None
        if empty is None:
            return ping
        delta = {"type": "content_block_delta", "index": said.index, "delta": empty}
        return ping + event(delta)

    def error(self, problem: Problem, _answer: Answer) -> bytes:
        """Return `error`."""
        return event(error_document(problem))


def error_document(problem: Problem) -> dict[str, Any]:
    """Return a problem in Anthropic's shape, and our own name for it beside."""
    status = status_of(problem)
    kind = "api_error" if status >= 500 else "invalid_request_error"
    error: dict[str, Any] = {
        "type": _TYPES.get(status, kind),
        "message": problem.message,
        "metadata": {"error_type": problem.error_type},
    }
    if problem.error_type == UNTHREADED:
        # With these words the tool runner of Anthropic's SDKs goes on without a thread.
        error["details"] = {"error_code": UNTHREADED, "unsupported": ["thread"]}
    return {"type": "error", "error": error}


def error_response(problem: Problem, request_id: str) -> ErrorResponse:
    """Return a refusal in Anthropic's shape."""
    body = msgspec.json.encode({**error_document(problem), "request_id": request_id})
    return ErrorResponse(status_of(problem), error_headers(problem), body)


MESSAGES: Final = Dialect(
    path="/v1/messages",
    upstream_path="/messages",
    raw=True,
    whole_events=True,
    forwarded=OPENROUTER_FIELDS | {b"anthropic-version", b"anthropic-beta"},
    parse=request_parser(MessagesRequest),
    read_events=event_reader(_MessageEvent, _say),
    read_document=read_message,
    as_stream=_as_stream,
    encoder=MessageEncoder,
    error=error_response,
)


def _parse_count(body: bytes, limits: RequestLimits) -> ParsedRequest:
    """Return the request to count; its answer is a document, whatever it says."""
    return dataclasses.replace(MESSAGES.parse(body, limits), stream=False)


COUNT_TOKENS: Final = dataclasses.replace(
    MESSAGES,
    path="/v1/messages/count_tokens",
    upstream_path="/messages/count_tokens",
    parse=_parse_count,
    read_document=read_count,
)

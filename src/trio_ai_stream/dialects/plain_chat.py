"""`/chat`: the original Go server's API, over upstream's chat completions.

JSON escapes newlines, so any text survives in one line; U+2028 and its like are
ordinary characters to an SSE parser (WHATWG HTML, section 9.2.6) and stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta, Struct

from trio_ai_stream.upstream.chunks import (
    chunks_of_answer,
    items_of_document,
    read_chunks,
)
from trio_ai_stream.wire.dialect import (
    HEARTBEAT,
    Dialect,
    ErrorResponse,
    ParsedRequest,
    RequestLimits,
)
from trio_ai_stream.wire.documents import ErrorDocument
from trio_ai_stream.wire.events import Answer, Item, Reasoning, ToolCallPiece
from trio_ai_stream.wire.problems import Problem, invalid
from trio_ai_stream.wire.validation import (
    ModelName,
    SomeText,
    Text,
    check_length,
    check_text,
    decode,
    plain_user,
    without_bom,
)


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text


class ChatRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What `POST /chat` takes: `prompt` or `messages`, and sampling options.

    A field that is null counts as left out.
    """

    prompt: SomeText | None = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    model: ModelName | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    stop: Text | Annotated[list[Text], Meta(max_length=4)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    include_reasoning: bool | None = None
    include_tool_calls: bool | None = None
    user: Annotated[Text, Meta(max_length=128)] | None = None

    def conversation(self) -> list[Message]:
        """Return the messages; a bare prompt is one user message."""
        if self.messages is None:
            return [Message("user", self.prompt or "")]
        return self.messages


_decoder = msgspec.json.Decoder(ChatRequest)


def parse_chat_request(body: bytes, limits: RequestLimits) -> ChatRequest:
    """Validate a body; texts are passed on unchanged or refused by name and position.

    Lengths are in characters, that of the messages over all of them.

    :raises Refused: 400 naming the field, or 413 for a text that is too long.
    """
    request = decode(_decoder, without_bom(body))
    if (request.prompt is None) == (request.messages is None):
        came = "neither" if request.prompt is None else "both"
        raise invalid("prompt", f"expected either prompt or messages, got {came}")
    if request.prompt is not None:
        texts = [("prompt", request.prompt)]
        check_length("prompt", len(request.prompt), limits.max_prompt_length)
    else:
        texts = [
            (f"messages[{i}].content", message.content)
            for i, message in enumerate(request.conversation())
        ]
        length = sum(len(text) for _, text in texts)
        check_length("messages", length, limits.max_messages_length)
    if all(not text.strip() for _, text in texts):
        raise invalid(texts[0][0], "expected some text, got none")
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    texts += [(f"stop[{i}]", text) for i, text in enumerate(stops)]
    texts += [("model", request.model or ""), ("user", request.user or "")]
    for field, text in texts:
        check_text(field, text)
    return request


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

    __slots__ = (
        "_include_reasoning",
        "_include_tool_calls",
        "_model",
        "_request_id",
        "_seam",
        "_tail",
        "_upstream",
    )
    held: ClassVar = (0, 0)

    def __init__(self, asked: ParsedRequest, request_id: str, upstream: str) -> None:
        # Not the request itself: it holds the body, which is let go of.
        self._include_reasoning = asked.reasoning
        self._include_tool_calls = asked.tool_calls
        self._model = asked.model
        self._request_id = request_id
        self._tail = _common(request_id) + b'"content"}\n\n'
        self._seam = self._tail + _HEAD
        self._upstream = upstream

    def content(self, items: Iterable[Item]) -> tuple[bytes, int]:
        """Return the frames of what the client gets of `items`, and their number."""
        if self._include_reasoning or self._include_tool_calls:
            return self._with_more(items)
        texts: list[str] = []
        found = texts.append
        for item in items:  # until Python 3.12 a comprehension is a call
            if type(item) is str:
                found(item)
        if not texts:
            return b"", 0
        try:  # all at once: a line each, and each line end is a seam
            lines = _encode_lines(texts)
        except UnicodeEncodeError:
            lines = b"\n".join([*map(json_text, texts), b""])
        return _HEAD + lines[:-1].replace(b"\n", self._seam) + self._tail, len(texts)

    def _with_more(self, items: Iterable[Item]) -> tuple[bytes, int]:
        frames: list[bytes] = []
        for item in items:
            if type(item) is str:
                frames.append(self._frame(item, "content", {}))
            elif type(item) is Reasoning and self._include_reasoning:
                frames.append(self._frame(item.text, "reasoning", {}))
            elif type(item) is ToolCallPiece and self._include_tool_calls:
                frames.append(
                    self._frame("", "tool_call", msgspec.structs.asdict(item))
                )
        return b"".join(frames), len(frames)

    @property
    def opening(self) -> bytes:
        """The first event: the stream exists, upstream has not answered yet.

        Made anew each time, which is once: a live stream does not hold it.
        """
        said = {"model": self._model, "upstream": self._upstream}
        return self._frame("", "connected", said)

    def heartbeat(self) -> bytes:
        """Return a comment."""
        return HEARTBEAT

    def ending(self, problem: Problem | None, answer: Answer) -> bytes:
        """Return `error`, or `done`."""
        if problem is not None:
            return self.error(problem, answer)
        more = {
            "finish_reason": answer.finish_reason,
            "usage": answer.usage,
            "generation_id": answer.generation_id,
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
        head = _HEAD + json_text(content) + _common(self._request_id)
        return head + _encode(type_) + comma + extra + b"\n\n"


def _common(request_id: str) -> bytes:
    """Return what stands between the content and the type of each event."""
    return b',"request_id":' + _encode(request_id) + b',"type":'


def parse(body: bytes, limits: RequestLimits) -> ParsedRequest:
    """Return the request for one `POST /chat`; what is left out stays out.

    :raises Refused: 400 or 413, naming the field.
    """
    request = parse_chat_request(body, limits)
    model = request.model or limits.default_model
    fields: dict[str, Any] = {
        "model": model,
        "messages": request.conversation(),
        "stream": True,
    }
    for name in ("temperature", "top_p", "max_tokens", "stop", "seed", "user"):
        if (value := getattr(request, name)) is not None:
            fields[name] = value
    reasoning = bool(request.include_reasoning)
    if reasoning:
        fields["include_reasoning"] = True
    return ParsedRequest(
        model,
        True,
        msgspec.json.encode(fields),
        reasoning=reasoning,
        tool_calls=bool(request.include_tool_calls),
        prompt_chars=sum(len(one.content) for one in request.conversation()),
        user=plain_user(request.user),
    )


def error(problem: Problem, request_id: str) -> ErrorResponse:
    """Return a refusal as the original Go server writes it."""
    document = ErrorDocument(
        message=problem.message,
        code=problem.status,
        error_type=problem.error_type,
        request_id=request_id,
        timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    retry_after = problem.retry_after_header
    headers = [] if retry_after is None else [("Retry-After", retry_after)]
    return ErrorResponse(problem.status, headers, msgspec.json.encode(document))


PLAIN_CHAT: Final = Dialect(
    path="/chat",
    upstream_path="/chat/completions",
    raw=False,
    parse=parse,
    read_events=read_chunks,
    read_document=items_of_document,
    as_stream=chunks_of_answer,
    encoder=ChatEncoder,
    error=error,
)

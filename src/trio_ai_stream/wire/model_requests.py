"""The bodies of `/v1`: checked where we must, else as they are.

Fields that we have no use for pass through to upstream, unread and unchanged: a new
option of a model needs no new release of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import Meta, Struct

from trio_ai_stream.wire.dialect import ParsedRequest, RequestLimits
from trio_ai_stream.wire.problems import Problem, Refused, invalid
from trio_ai_stream.wire.validation import (
    ModelName,
    check_length,
    check_text,
    decode,
    plain_user,
    without_bom,
)

UNTHREADED = "thread_unsupported_request"
# Where the texts of a message are, of its parts, and of what tools answered.
_TEXTS = ("text", "content", "output", "thinking")
_DEPTH = 8


def text_length(value: Any, depth: int = _DEPTH) -> int:
    """Return how many characters the texts in a message's content have."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list) and depth:
        return sum([text_length(part, depth - 1) for part in value])
    if isinstance(value, dict) and depth:
        found = [value[name] for name in _TEXTS if name in value]
        return sum([text_length(part, depth - 1) for part in found])
    return 0


class ModelRequest(Struct, frozen=True, kw_only=True):
    """What the server reads of any request to a model; further fields pass through."""

    field: ClassVar[str] = ""  # where the texts are

    model: ModelName | None = None
    models: list[ModelName] | None = None
    preset: ModelName | None = None
    stream: bool | None = False
    user: Any = None
    safety_identifier: Any = None

    def for_whom(self) -> str | None:
        """Return the name of the caller's own user; None if it said none.

        `safety_identifier` takes the place of `user` in OpenAI's newer requests.
        """
        return plain_user(self.user) or plain_user(self.safety_identifier)

    def chosen(self) -> str | None:
        """Return who is to answer, by what the caller said; None if it said nothing.

        `models` is OpenRouter's list of fallbacks, in order, and needs no `model`; a
        preset holds its own (OpenRouter docs, "Model Fallbacks" and "Presets").
        """
        if self.model is not None:
            return self.model
        if self.models:
            return self.models[0]
        return None if self.preset is None else f"@preset/{self.preset}"

    def choices(self) -> int:
        """Return how many answers there are to wait for."""
        return 1

    def check(self) -> None:
        """Refuse what the types let pass: fields that need each other."""

    def length(self) -> int:
        """Return how many characters the texts have."""
        raise NotImplementedError


class ContentPart(Struct, frozen=True, gc=False):
    """A part of a message: a text, or whatever else upstream takes."""

    type: str
    text: str | None = None


class CompletionMessage(Struct, frozen=True, gc=False):
    """One message of the conversation; further fields pass through."""

    role: str
    content: str | list[ContentPart] | None = None

    def length(self) -> int:
        """Return how many characters the texts of the message have."""
        content = self.content
        if content is None:
            return 0
        if isinstance(content, str):
            return len(content)
        return sum(len(part.text) for part in content if part.text is not None)


class CompletionRequest(ModelRequest, frozen=True, kw_only=True):
    """What the server reads of a chat completion; further fields pass through."""

    field: ClassVar = "messages"

    messages: Annotated[list[CompletionMessage], Meta(min_length=1)]
    n: Any = None

    def choices(self) -> int:
        """Return `n`; upstream judges it."""
        return self.n if type(self.n) is int else 1

    def length(self) -> int:
        """Return how many characters the texts of all messages have."""
        return sum([message.length() for message in self.messages])


class AgentMessage(Struct, frozen=True):
    """One message of the conversation; further fields pass through."""

    role: str
    content: str | list[dict[str, Any]]


class MessagesRequest(ModelRequest, frozen=True, kw_only=True):
    """What the server reads of Anthropic's Messages; further fields pass through."""

    field: ClassVar = "messages"

    messages: Annotated[list[AgentMessage], Meta(min_length=1)]
    system: str | list[dict[str, Any]] | None = None
    metadata: Any = None
    thread: Annotated[Any, Meta(extra_json_schema={"type": "null"})] = None

    def check(self) -> None:
        """Refuse a request for a conversation that is kept.

        An upstream that passes over the field answers the first turn, and Anthropic's
        SDKs send nothing of that turn with the next.
        """
        if self.thread is not None:
            message = (
                "thread: no conversation is kept, neither here nor by OpenRouter; "
                "leave it out and send all messages each time"
            )
            raise Refused(Problem(400, UNTHREADED, message, field="thread"))

    def for_whom(self) -> str | None:
        """Return the name of the caller's own user, which is `metadata.user_id`."""
        said = self.metadata if isinstance(self.metadata, dict) else {}
        return super().for_whom() or plain_user(_without_session(said.get("user_id")))

    def length(self) -> int:
        """Return how many characters the texts of all messages and `system` have."""
        contents = [text_length(message.content) for message in self.messages]
        return sum(contents) + text_length(self.system)


def _without_session(user_id: Any) -> Any:
    """Return who sends Claude Code's `user_id`, which names each session as well.

    `user_HASH_account_ID_session_ID`, and since 2.1.78 a JSON object of the three.
    """
    if not isinstance(user_id, str):
        return None
    if user_id.startswith("{"):
        try:
            ids = msgspec.json.decode(user_id, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return user_id
        return ids.get("account_uuid") or ids.get("device_id") or user_id
    return user_id.partition("_session_")[0]


class ResponsesRequest(ModelRequest, frozen=True, kw_only=True):
    """What the server reads of OpenAI's Responses; further fields pass through."""

    field: ClassVar = "input"

    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1)] | None = None
    instructions: str | None = None
    prompt: Any = None  # one that is stored upstream, for its id

    def check(self) -> None:
        """Refuse a request that has neither a text nor a stored one."""
        if self.input is None and self.prompt is None:
            raise invalid("input", "expected input, or a stored prompt, got neither")

    def length(self) -> int:
        """Return how many characters the texts of `input` and `instructions` have."""
        return text_length(self.input) + text_length(self.instructions)


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
Request = TypeVar("Request", bound=ModelRequest)


def request_parser(
    model_request: type[Request],
) -> Callable[[bytes, RequestLimits], ParsedRequest]:
    """Return what checks bodies of one shape.

    A body's bytes are kept unless `model` is to be filled in. It raises `Refused`: 400
    naming the field, or 413 past so many characters.
    """
    decoder = msgspec.json.Decoder(model_request)

    def parse(body: bytes, limits: RequestLimits) -> ParsedRequest:
        body = without_bom(body)
        # Unlike `/chat`, texts may hold control characters and half characters: coding
        # agents send what a terminal printed, cut anywhere, and these endpoints'
        # promise is to pass it through.
        request = decode(decoder, body, lone_surrogates=True)
        request.check()
        length = request.length()
        check_length(request.field, length, limits.max_messages_length)
        model = request.chosen() or limits.default_model
        check_text("model", model)
        if request.model is None:
            named = not request.models and request.preset is None
            body = _with_model(body, model if named else None)
        return ParsedRequest(
            model,
            bool(request.stream),
            body,
            request.choices(),
            event_heartbeats=limits.event_heartbeats,
            prompt_chars=length,
            user=request.for_whom(),
        )

    return parse


def _with_model(body: bytes, model: str | None) -> bytes:
    """Set `model`, or take a null away; other values keep their bytes and digits."""
    fields: dict[str, Any]
    try:
        fields = {**_fields.decode(body)}
        encode: Callable[[Any], bytes] = msgspec.json.encode
    except msgspec.DecodeError:  # half a character, which msgspec does not read
        fields = json.loads(body)
        encode = _encode_ascii
    if model is None and "model" not in fields:
        return body
    fields.pop("model", None)
    if model is not None:
        fields["model"] = model
    return encode(fields)


def _encode_ascii(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii")

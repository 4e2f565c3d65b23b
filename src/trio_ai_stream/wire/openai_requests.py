"""The body of `POST /v1/chat/completions`: checked where we must, else as it is.

Fields that we have no use for pass through to upstream, unread and unchanged: a new
option of a model needs no new release of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from trio_ai_stream.wire.dialect import ParsedRequest, RequestLimits
from trio_ai_stream.wire.validation import (
    ModelName,
    check_length,
    check_text,
    decode,
    plain_user,
    without_bom,
)


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


class CompletionRequest(Struct, frozen=True):
    """What the server reads of a chat completion; further fields pass through."""

    messages: Annotated[list[CompletionMessage], Meta(min_length=1)]
    model: ModelName | None = None
    models: list[ModelName] | None = None
    preset: ModelName | None = None
    stream: bool | None = False
    n: Any = None
    user: Any = None

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


_decoder = msgspec.json.Decoder(CompletionRequest)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse_completion(body: bytes, limits: RequestLimits) -> ParsedRequest:
    """Check a body; its bytes are kept unless `model` is to be filled in.

    :raises Refused: 400 naming the field, or 413 past that many characters.
    """
    body = without_bom(body)
    # Unlike `/chat`, texts may hold control characters and half characters: coding
    # agents send what a terminal printed, cut anywhere, and this endpoint's promise is
    # to pass it through.
    request = decode(_decoder, body, lone_surrogates=True)
    length = sum([message.length() for message in request.messages])
    check_length("messages", length, limits.max_messages_length)
    model = request.chosen() or limits.default_model
    check_text("model", model)
    if request.model is None:
        named = not request.models and request.preset is None
        body = _with_model(body, model if named else None)
    # Upstream judges it; here it only says how many answers there are to wait for.
    choices = request.n if type(request.n) is int else 1
    return ParsedRequest(
        model,
        bool(request.stream),
        body,
        choices,
        prompt_chars=length,
        user=plain_user(request.user),
    )


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

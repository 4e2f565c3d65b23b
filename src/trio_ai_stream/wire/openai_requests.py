"""The body of `POST /v1/chat/completions`: checked where we must, else as it is.

Fields that we have no use for pass through to upstream, unread and unchanged: a new
option of a model needs no new release of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from trio_ai_stream.wire.validation import (
    ModelName,
    check_length,
    check_text,
    decode,
)


class ContentPart(Struct, frozen=True):
    """A part of a message: a text, or whatever else upstream takes."""

    type: str
    text: str | None = None


class CompletionMessage(Struct, frozen=True):
    """One message of the conversation; further fields pass through."""

    role: str
    content: str | list[ContentPart] | None = None

    def texts(self) -> Iterator[str]:
        """Yield each text of the message."""
        if isinstance(self.content, str):
            yield self.content
        elif self.content is not None:
            yield from (part.text for part in self.content if part.text is not None)


class CompletionRequest(Struct, frozen=True):
    """What the server reads of a chat completion; further fields pass through."""

    messages: Annotated[list[CompletionMessage], Meta(min_length=1)]
    model: ModelName | None = None
    stream: bool | None = False


@dataclass(frozen=True, slots=True)
class Completion:
    """One checked request; `body` is the JSON for upstream."""

    model: str
    stream: bool
    body: bytes


_decoder = msgspec.json.Decoder(CompletionRequest)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse_completion(
    body: bytes, *, default_model: str, max_prompt_length: int
) -> Completion:
    """Check a body; its bytes are kept unless `model` is to be filled in.

    :raises Refused: 400 naming the field, or 413 past `max_prompt_length` characters.
    """
    request = decode(_decoder, body)
    texts = (text for message in request.messages for text in message.texts())
    check_length("messages", texts, max_prompt_length)
    # Unlike `/chat`, texts may hold control characters: coding agents send what a
    # terminal printed, and this endpoint's promise is to pass it through.
    check_text("model", request.model or "")
    model = request.model
    if model is None:
        model = default_model
        body = _with_model(body, model)
    return Completion(model, bool(request.stream), body)


def _with_model(body: bytes, model: str) -> bytes:
    """Fill in `model`; every other value keeps its bytes, so numbers their digits."""
    fields = _fields.decode(body)
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)

"""The body of `POST /chat`: a `ChatRequest`, or a `Refused` naming the field."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from trio_ai_stream.wire.problems import invalid
from trio_ai_stream.wire.validation import (
    ModelName,
    SomeText,
    Text,
    check_length,
    check_text,
    decode,
)


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text


class ChatRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What `POST /chat` takes: `prompt` or `messages`, and sampling options."""

    prompt: SomeText | UnsetType = UNSET
    messages: Annotated[list[Message], Meta(min_length=1)] | UnsetType = UNSET
    model: ModelName | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | UnsetType = UNSET
    stop: Text | Annotated[list[Text], Meta(max_length=4)] | UnsetType = UNSET
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | UnsetType = UNSET
    include_reasoning: bool = False

    def conversation(self) -> list[Message]:
        """Return the messages; a bare prompt is one user message."""
        if isinstance(self.messages, UnsetType):
            return [Message("user", self.prompt or "")]
        return self.messages


_decoder = msgspec.json.Decoder(ChatRequest)


def parse_chat_request(body: bytes, *, max_prompt_length: int) -> ChatRequest:
    """Validate a body; texts are passed on unchanged or refused by name and position.

    :raises Refused: 400 naming the field, or 413 past `max_prompt_length` characters.
    """
    request = decode(_decoder, body)
    if isinstance(request.prompt, UnsetType) == isinstance(request.messages, UnsetType):
        came = "neither" if isinstance(request.prompt, UnsetType) else "both"
        raise invalid("prompt", f"expected either prompt or messages, got {came}")
    _check_texts(request, max_prompt_length)
    return request


def _check_texts(request: ChatRequest, max_prompt_length: int) -> None:
    texts = [
        (f"messages[{i}].content", message.content)
        for i, message in enumerate(request.conversation())
    ]
    if not isinstance(request.prompt, UnsetType):
        texts = [("prompt", request.prompt)]
    if all(not text.strip() for _, text in texts):
        raise invalid(texts[0][0], "expected some text, got none")
    field = texts[0][0].partition("[")[0]
    check_length(field, (text for _, text in texts), max_prompt_length)
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    texts += [(f"stop[{i}]", text) for i, text in enumerate(stops)]
    texts += [("model", request.model or "")]
    for field, text in texts:
        check_text(field, text)

"""The body of `POST /chat`: a `ChatRequest`, or a `Refused` naming the field."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from trio_ai_stream.wire.problems import invalid
from trio_ai_stream.wire.validation import (
    ModelName,
    SomeText,
    Text,
    check_length,
    check_text,
    decode,
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


def parse_chat_request(
    body: bytes, *, max_prompt_length: int, max_messages_length: int
) -> ChatRequest:
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
        check_length("prompt", len(request.prompt), max_prompt_length)
    else:
        texts = [
            (f"messages[{i}].content", message.content)
            for i, message in enumerate(request.conversation())
        ]
        check_length("messages", sum(len(t) for _, t in texts), max_messages_length)
    if all(not text.strip() for _, text in texts):
        raise invalid(texts[0][0], "expected some text, got none")
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    texts += [(f"stop[{i}]", text) for i, text in enumerate(stops)]
    texts += [("model", request.model or ""), ("user", request.user or "")]
    for field, text in texts:
        check_text(field, text)
    return request

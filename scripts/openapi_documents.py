"""The JSON documents that only their description names: no code makes them as objects.

The server writes them out of dictionaries, or passes on what upstream gave.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from trio_ai_stream.wire.documents import ModelDocument, StreamDocument


class ModelListDocument(Struct, frozen=True):
    """All models that upstream lists."""

    object: str
    data: list[ModelDocument]


class ErrorMetadata(Struct, frozen=True):
    """The server's own name for the error, as `/chat` has it."""

    error_type: str


class OpenAIError(Struct, frozen=True):
    """What went wrong, as OpenAI's and OpenRouter's clients read it."""

    message: str
    code: int
    type: str
    param: str | None
    metadata: ErrorMetadata


class OpenAIErrorDocument(Struct, frozen=True):
    """A refusal, or a mistake of the server's or of upstream's."""

    error: OpenAIError


class AnthropicError(Struct, frozen=True):
    """What went wrong, as Anthropic's clients read it."""

    type: str
    message: str
    metadata: ErrorMetadata


class AnthropicErrorDocument(Struct, frozen=True):
    """A refusal, or a mistake of the server's or of upstream's."""

    type: str
    error: AnthropicError
    request_id: str


class MessageDocument(Struct, frozen=True):
    """A whole message, as upstream gave it; the further fields are Anthropic's."""

    id: str
    type: str
    content: list[dict[str, Any]]


class TokenCount(Struct, frozen=True):
    """How many tokens a message would take."""

    input_tokens: int


class ResponseDocument(Struct, frozen=True):
    """A whole response, as upstream gave it; the further fields are OpenAI's."""

    id: str
    object: str
    output: list[dict[str, Any]]


class CompletionDocument(Struct, frozen=True):
    """A whole answer, as upstream gave it; the further fields are OpenAI's."""

    id: str
    object: str
    choices: list[dict[str, Any]]


class UsageDocument(Struct, frozen=True):
    """Sums over ended streams, a row for each group, the dearest first.

    `hosts` is `all`, or `own`: the one that answers. `key` is whose streams they are;
    null: those of all keys. `budgets` are those of the caller's key, or of all: a day's
    and a month's for each.
    """

    hosts: str
    by: list[str]
    key: str | None
    rows: list[dict[str, Any]]
    budgets: list[dict[str, Any]]


class StreamList(Struct, frozen=True):
    """The live streams that the caller may see; `complete` if everybody answered."""

    streams: list[StreamDocument]
    complete: bool

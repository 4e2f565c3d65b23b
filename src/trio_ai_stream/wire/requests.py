"""The body of `POST /chat`: a `ChatRequest`, or a `Refused` naming the field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from trio_ai_stream.wire.problems import Problem, Refused, invalid

# C0 controls except tab, newline and carriage return; and lone surrogates, which JSON
# can spell ("\ud800") but UTF-8 cannot carry.
FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")

ModelName = Annotated[str, Meta(min_length=1, max_length=200)]


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


class ChatRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What `POST /chat` takes: `prompt` or `messages`, and sampling options."""

    prompt: str | UnsetType = UNSET
    messages: Annotated[list[Message], Meta(min_length=1)] | UnsetType = UNSET
    model: ModelName | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | UnsetType = UNSET
    stop: str | Annotated[list[str], Meta(max_length=4)] | UnsetType = UNSET
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
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError as exc:
        field, message = _explain(str(exc))
        raise invalid(field, message) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        for field, text in _texts_of_lenient_json(body):
            _check_text(field, text)
        raise Refused(not_json(exc)) from exc
    if isinstance(request.prompt, UnsetType) == isinstance(request.messages, UnsetType):
        came = "neither" if isinstance(request.prompt, UnsetType) else "both"
        raise invalid("prompt", f"expected either prompt or messages, got {came}")
    _check_texts(request, max_prompt_length)
    return request


def not_json(exc: Exception) -> Problem:
    """Return the refusal of a body that is not JSON; says where, quotes nothing."""
    where = re.search(r"byte (\d+)", str(exc))
    at = f" (byte {where[1]})" if where else ""
    return Problem(400, "invalid_request", f"body: expected one JSON object{at}")


def _check_texts(request: ChatRequest, max_prompt_length: int) -> None:
    texts = [
        (f"messages[{i}].content", message.content)
        for i, message in enumerate(request.conversation())
    ]
    if not isinstance(request.prompt, UnsetType):
        texts = [("prompt", request.prompt)]
    if all(not text.strip() for _, text in texts):
        raise invalid(texts[0][0], "expected some text, got none")
    length = sum(len(text) for _, text in texts)
    if length > max_prompt_length:
        message = f"expected at most {max_prompt_length} characters, got {length}"
        raise invalid(texts[0][0].partition("[")[0], message, status=413)
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    texts += [(f"stop[{i}]", text) for i, text in enumerate(stops)]
    texts += [("model", request.model or "")]
    for field, text in texts:
        _check_text(field, text)


def _check_text(field: str, text: str) -> None:
    if bad := FORBIDDEN.search(text):
        raise invalid(
            field,
            "expected no control characters or lone surrogates,"
            f" got U+{ord(bad[0]):04X} at position {bad.start()}",
        )


def _texts_of_lenient_json(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield each text with its path, as the standard library reads it.

    It takes lone surrogates where the strict decoder says only that something is wrong.
    """
    try:
        stack = [("", json.loads(body))]
    except (ValueError, RecursionError):
        return
    while stack:
        path, value = stack.pop()
        if isinstance(value, str):
            yield path or "body", value
        elif isinstance(value, dict):
            stack += [(f"{path}.{_short(k)}".lstrip("."), v) for k, v in value.items()]
        elif isinstance(value, list):
            stack += [(f"{path}[{i}]", v) for i, v in enumerate(value)]


def _explain(message: str) -> tuple[str, str]:
    """Turn msgspec's words into a field's name and what was expected of it."""
    text, _, path = message.partition(" - at `")
    field = path.rstrip("`").removeprefix("$").lstrip(".").replace("[...]", "[]")
    if unknown := re.match(r"Object contains unknown field `(.*)`", text, re.DOTALL):
        name = unknown[1] if not field else f"{field}.{unknown[1]}"
        return _short(name), "unknown field; see the README for those there are"
    if missing := re.match(r"Object missing required field `(.*)`", text):
        return f"{field}.{missing[1]}".lstrip("."), "expected this field, got none"
    if text.startswith("Invalid enum value") and field.endswith("role"):
        return field, "expected system, developer, user or assistant"
    text = text.replace("`", "")
    return field or "body", text[:1].lower() + text[1:]


def _short(name: str) -> str:
    """Bound what of a caller's own field name is repeated in an error."""
    printable = "".join(c if c.isprintable() else "?" for c in name)
    return printable if len(printable) <= 64 else printable[:61] + "..."

"""What request bodies are checked for, whatever their shape: JSON, texts, lengths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from trio_ai_stream.wire.problems import Problem, Refused, invalid

# C0 controls except tab, newline and carriage return; and lone surrogates, which JSON
# can spell ("\ud800") but UTF-8 cannot carry.
FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")

# The same for readers of the OpenAPI file, as documentation: `check_text` says by name
# and position what is wrong, which a pattern's failure does not.
_CONTROLS: Final = r"\u0000-\u0008\u000b\u000c\u000e-\u001f"
_ALLOWED: Final = {"pattern": f"^[^{_CONTROLS}]*$"}
_SOME: Final = {"pattern": f"^[^{_CONTROLS}]*[^\\s{_CONTROLS}][^{_CONTROLS}]*$"}
Text = Annotated[str, Meta(extra_json_schema=_ALLOWED)]
SomeText = Annotated[str, Meta(extra_json_schema=_SOME)]
ModelName = Annotated[
    str, Meta(min_length=1, max_length=200, extra_json_schema=_ALLOWED)
]
T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a body, or say what is wrong with it.

    :raises Refused: 400 naming the field.
    """
    try:
        body.decode()  # fields that nobody declared are skipped, not decoded
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        field, message = _explain(str(exc))
        raise invalid(field, message) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        for field, text in _texts_of_lenient_json(body):
            check_text(field, text)
        raise Refused(not_json(exc)) from exc


def not_json(exc: Exception) -> Problem:
    """Return the refusal of a body that is not JSON; says where, quotes nothing."""
    where = re.search(r"byte (\d+)", str(exc))
    at = f" (byte {where[1]})" if where else ""
    return Problem(400, "invalid_request", f"body: expected one JSON object{at}")


def check_length(field: str, texts: Iterable[str], limit: int) -> None:
    """Refuse texts that are longer than `limit` characters together."""
    length = sum(len(text) for text in texts)
    if length > limit:
        message = f"expected at most {limit} characters, got {length}"
        raise invalid(field, message, status=413)


def check_text(field: str, text: str) -> None:
    """Refuse characters that no prompt needs and some transport cannot carry."""
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

"""What request bodies are checked for, whatever their shape: JSON, texts, lengths."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from trio_ai_stream.wire.problems import invalid

# C0 controls except tab, newline and carriage return.
FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
# Half a character: JSON can spell it ("\ud800"), UTF-8 cannot carry it.
_LONE: Final = re.compile("[\ud800-\udfff]")
# The same as an escape in a body: a high one that no low one follows, or a low one that
# no high one stands before. It begins with the two bytes that are quick to search for.
_SURROGATE: Final = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
# More of them in one body are refused: to replace each is a call.
MAX_SURROGATES: Final = 10_000
# A longer body is not read a second time to say what is wrong with it.
MAX_EXPLAINED: Final = 1_048_576

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


def decode(
    decoder: msgspec.json.Decoder[T], body: bytes, *, lone_surrogates: bool = False
) -> T:
    """Decode a body, or say what is wrong with it.

    :param lone_surrogates: let some thousands pass; each reads as U+FFFD.
    :raises Refused: 400 naming the field.
    """
    try:
        body.decode()  # fields that nobody declared are skipped, not decoded
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        field, message = _explain(str(exc))
        raise invalid(field, message) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        if lone_surrogates:
            replaced = _SURROGATE.sub(_replace, body, count=MAX_SURROGATES)
            if replaced != body:
                return decode(decoder, replaced)
        field, message = _why_not_json(body)
        raise invalid(field, message) from exc


def plain_user(value: object) -> str | None:
    """Return the name of a caller's own user, cut to 128 characters; None if odd."""
    plain = isinstance(value, str) and value.isprintable()
    return str(value)[:128] or None if plain else None


def without_bom(body: bytes) -> bytes:
    """Return a body without the byte order mark that some clients put before it."""
    return body.removeprefix(codecs.BOM_UTF8)


def _replace(escape: re.Match[bytes]) -> bytes:
    """Replace an escape, unless its backslash is itself escaped."""
    before = escape.string[max(0, escape.start() - 64) : escape.start()]
    escaped = (len(before) - len(before.rstrip(b"\\"))) % 2
    return escape[0] if escaped else rb"\ufffd"


def _why_not_json(body: bytes) -> tuple[str, str]:
    """Say where a body stops to be JSON, and what is there; quotes nothing of it.

    The standard library reads it once more: it says more than the strict decoder, and
    takes lone surrogates and NaN, so that these can be named.
    """
    expected = "expected one JSON object in UTF-8"
    try:
        text = body[: MAX_EXPLAINED + 1].decode()
    except UnicodeDecodeError as exc:
        wide = body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if wide or b"\0" in body[:4]:
            return "body", f"{expected}, got UTF-16 or UTF-32"
        if exc.end <= MAX_EXPLAINED - 4:
            came = f"byte {body[exc.start]:#04x} at position {exc.start}"
            return "body", f"{expected}, got {came}"
        return "body", expected
    if len(body) > MAX_EXPLAINED:
        return "body", expected
    if "\0" in text[:4]:
        return "body", f"{expected}, got UTF-16 or UTF-32"
    constants: list[str] = []
    try:
        document = json.loads(text, parse_constant=constants.append)
    except json.JSONDecodeError as exc:
        what = exc.msg[:1].lower() + exc.msg[1:]
        return "body", f"{expected}, got something else at byte {_at(exc)}: {what}"
    except (ValueError, RecursionError):  # digits or brackets without end
        return "body", f"{expected}, nested less deeply, and numbers shorter"
    if constants:
        return "body", f"{expected}, got {constants[0]}, which JSON does not have"
    for field, found in _texts(document):
        if lone := _LONE.search(found):
            return field, _got_surrogate(lone)
    return "body", expected


def _at(exc: json.JSONDecodeError) -> int:
    return len(exc.doc[: exc.pos].encode())


def check_length(field: str, length: int, limit: int) -> None:
    """Refuse texts that have more than `limit` characters together."""
    if length > limit:
        message = f"expected at most {limit} characters, got {length}"
        raise invalid(field, message, status=413)


def check_text(field: str, text: str) -> None:
    """Refuse control characters, which no prompt needs.

    A lone surrogate does not come this far: `decode` refuses it.
    """
    if bad := FORBIDDEN.search(text):
        raise invalid(
            field,
            "expected no control characters,"
            f" got U+{ord(bad[0]):04X} at position {bad.start()}",
        )


def _got_surrogate(lone: re.Match[str]) -> str:
    return (
        "expected whole characters, got half of one (the lone surrogate"
        f" U+{ord(lone[0]):04X}) at position {lone.start()}"
    )


def _texts(document: object) -> Iterator[tuple[str, str]]:
    """Yield each text of a JSON document with its path, names of fields included."""
    stack = [("", document)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, str):
            yield path or "body", value
        elif isinstance(value, dict):
            for name, inner in reversed(value.items()):
                field = f"{path}.{_short(name)}".lstrip(".")
                stack += [(field, inner), (field, name)]
        elif isinstance(value, list):
            stack += reversed([(f"{path}[{i}]", v) for i, v in enumerate(value)])


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

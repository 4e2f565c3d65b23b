"""The reason in an error's body, in any of the shapes that are sent; pure.

What is found here is for the caller, never for the log: it may quote the prompt.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any, Final

MAX_TEXT: Final = 300
# A compressed body may say in a kilobyte what fills a megabyte.
MAX_DECODED: Final = 64 * 1024
_MESSAGE: Final = re.compile(r'"(?:message|detail)"\s*:\s*"((?:[^"\\]|\\.)*)')
_TEXTS: Final = ("message", "msg", "error_message", "error", "detail")
# They join the parts of an emoji, and letters in Persian and Hindi.
_JOINERS: Final = "\u200c\u200d"
_DEPTH: Final = 6


def clean(text: str) -> str:
    """Return `text` in one line, without control characters, cut between two words."""
    line = " ".join(text[: 8 * MAX_TEXT].split())
    kept = "".join(c for c in line if c.isprintable() or c in _JOINERS)
    if len(kept) <= MAX_TEXT:
        return kept
    kept = kept[:MAX_TEXT]
    return f"{kept.rpartition(' ')[0] or kept} …"


def reason_in(value: Any, depth: int = _DEPTH) -> str:
    """Return the text that says what is wrong; empty if there is none.

    A provider's own words, in `metadata.raw`, stand behind OpenRouter's, which often
    are no more than that the provider returned an error.
    """
    if depth == 0:
        return ""
    if isinstance(value, str):
        if value.lstrip()[:1] == "<":  # a web page
            return ""
        nested = _json(value) if value.lstrip()[:1] in {"{", "["} else None
        return (nested is not None and reason_in(nested, depth - 1)) or clean(value)
    if isinstance(value, list):
        found = [reason_in(item, depth - 1) for item in value[:3]]
        return clean("; ".join(text for text in found if text))
    if not isinstance(value, dict):
        return ""
    texts = (reason_in(value.get(name), depth - 1) for name in _TEXTS)
    said = next((text for text in texts if text), "")
    metadata = value.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    provider = reason_in(raw, depth - 1)
    if provider and provider not in said:
        said = f"{said}: {provider}" if said else provider
    place = value.get("path", value.get("loc"))
    if said and isinstance(place, list) and place:
        said = f"{'.'.join(str(step) for step in place[:8])}: {said}"
    return clean(said)


def document_of(body: bytes, encoding: str = "") -> dict[str, Any] | None:
    """Return the error's body as an object; None if it is a web page, or nothing.

    `body` may be the beginning of a longer one, and compressed as `encoding` says.
    """
    text = _decoded(body, encoding).decode("utf-8", "replace")
    document = _json(text)
    if isinstance(document, dict):
        return document
    if found := _MESSAGE.search(text):
        return {"message": _json(f'"{found[1]}"') or found[1]}
    text = "" if "\ufffd" in text else text.strip()
    return {"message": text} if text and text[0] not in "<{" else None


def _decoded(body: bytes, encoding: str) -> bytes:
    if encoding.strip().lower() not in {"gzip", "x-gzip", "deflate"}:
        return body
    try:
        return zlib.decompressobj(wbits=47).decompress(body, MAX_DECODED)
    except zlib.error:
        return b""


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None

"""What one chunk of a streamed completion says, whatever server it is of.

Servers that are compatible with OpenAI's API differ in what they leave out and in how
they name reasoning and errors. What cannot be understood is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from trio_ai_stream.wire.record import MAX_USD


class CompletionDelta(NamedTuple):
    """The parts of a chunk that a person may want to see."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[dict[str, Any], ...] = ()
    finish_reason: str = ""


def decode_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`, also with NaN or texts that are not UTF-8.

    :raises ValueError: it is none.
    """
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (ValueError, RecursionError):
        pass
    try:
        found = json.loads(data.decode("utf-8", "replace"))
    except RecursionError as exc:
        raise ValueError("expected JSON, got it nested too deeply") from exc
    return msgspec.convert(found, dict[str, Any])


def read_delta(chunk: dict[str, Any]) -> CompletionDelta:
    """Return what the first choice of `chunk`, or of a whole answer, adds."""
    match chunk.get("choices"):
        case [{"delta": dict(delta)} as choice, *_]:
            pass
        case [{"message": dict(delta)} as choice, *_]:
            pass
        case [{"finish_reason": str(_)} as choice, *_]:
            delta = {}
        case _:
            return CompletionDelta()
    reasoning = delta.get("reasoning") or delta.get("reasoning_content")
    calls = delta.get("tool_calls")
    return CompletionDelta(
        _text(delta.get("content")),
        _text(reasoning),
        tuple(c for c in calls if isinstance(c, dict))
        if isinstance(calls, list)
        else (),
        _text(choice.get("finish_reason")),
    )


def read_error(document: dict[str, Any], status: int | str = "") -> tuple[str, str]:
    """Return the name of the error in `document`, and its message; "" for none."""
    match document.get("error"):
        case dict(error):
            pass
        case str(text) if text:
            error = {"message": text}
        case _:
            return "", ""
    metadata = error.get("metadata")
    own = metadata.get("error_type") if isinstance(metadata, dict) else None
    name = own or error.get("type") or "error"
    code = status or error.get("code") or ""
    return f"{name} ({code})" if code else f"{name}", _text(error.get("message"))


def read_usage(chunk: dict[str, Any]) -> str:
    """Return what the answer has used, in words; "" where the chunk does not say."""
    usage = chunk.get("usage")
    if not isinstance(usage, dict):
        return ""
    match usage:
        case {"prompt_tokens": int(prompt), "completion_tokens": int(answer)}:
            cost = usage.get("cost")
            known = isinstance(cost, int | float) and 0 < cost < MAX_USD
            price = f", ${cost:.6f}" if known else ""
            return f"{prompt} + {answer} tokens{price}"
    return ""


@dataclass
class ToolCalls:
    """Tool calls, put together from their pieces."""

    _names: dict[int, str] = field(default_factory=dict)
    _arguments: dict[int, str] = field(default_factory=dict)

    def add(self, pieces: tuple[dict[str, Any], ...]) -> None:
        """Take the pieces of one chunk."""
        for piece in pieces:
            index = piece.get("index")
            at = index if isinstance(index, int) else len(self._names)
            function = piece.get("function")
            if isinstance(function, dict):
                name = _text(function.get("name"))
                self._names[at] = self._names.get(at) or name
                more = _text(function.get("arguments"))
                self._arguments[at] = self._arguments.get(at, "") + more

    def taken(self) -> list[str]:
        """Return each call as `name(arguments)`, once."""
        calls = [f"{n or '?'}({self._arguments[i]})" for i, n in self._names.items()]
        self._names.clear()
        self._arguments.clear()
        return calls


def _text(value: object) -> str:
    """Return a text that can be written: half a surrogate pair is replaced."""
    if not isinstance(value, str):
        return ""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

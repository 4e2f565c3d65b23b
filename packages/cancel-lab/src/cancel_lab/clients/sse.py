"""What a client saw of one answer: its events counted, its ending named.

The parser is the instrument's own, so that a defect of the server's encoder shows. It
understands four vocabularies: this server's (``type`` of each event), OpenAI's (chunks
with ``choices``, then ``[DONE]``), OpenAI's Responses and Anthropic's Messages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

TERMINAL_TYPES = {
    "done": "done",
    "error": "error",
    "message_stop": "done",
    "response.completed": "done",
    "response.incomplete": "done",
    "response.failed": "error",
}


# Of a body that is kept whole. What is measured sends some kilobytes.
SINK_BYTES = 1024 * 1024


@dataclass
class Seen:
    """One answer as it came in: mutable, because it is filled while it arrives."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    events: int = 0
    tokens: int = 0
    comments: int = 0
    terminals: list[str] = field(default_factory=list)
    events_after_terminal: int = 0
    bytes: int = 0
    complete: bool = False
    cut: str | None = None
    first_token_ns: int | None = None
    ended_ns: int | None = None

    @property
    def over(self) -> bool:
        """Whether nothing further can arrive."""
        return self.complete or self.cut is not None

    @property
    def ending(self) -> str:
        """The terminal event if there was one, else how the answer stopped."""
        if self.terminals:
            return self.terminals[0]
        if self.complete:
            return "complete without a terminal event"
        return f"cut: {self.cut}" if self.cut else "still open"


class EventParser:
    """Feeds bytes of a ``text/event-stream`` into a Seen; any split of them will do."""

    def __init__(self, seen: Seen) -> None:
        """Count into ``seen``."""
        self.seen = seen
        self._rest = b""
        self._ended_by_event = False

    def feed(self, data: bytes, now_ns: int) -> None:
        """Take the next bytes, which arrived at ``now_ns``."""
        self.seen.bytes += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.rstrip(b"\r"), now_ns)

    def _line(self, line: bytes, now_ns: int) -> None:
        if line.startswith(b":"):
            self.seen.comments += 1
        elif line.startswith(b"data:"):
            self._event(line[5:].strip(), now_ns)

    def _event(self, data: bytes, now_ns: int) -> None:
        seen = self.seen
        if data == b"[DONE]" and self._ended_by_event:
            return  # Responses have an end of their own; some say this behind it
        if seen.terminals:
            seen.events_after_terminal += 1
        seen.events += 1
        kind = classify(data)
        if kind == "token":
            seen.tokens += 1
            if seen.first_token_ns is None:
                seen.first_token_ns = now_ns
        elif kind is not None:
            seen.terminals.append(kind)
            self._ended_by_event = data != b"[DONE]" and b'"response.' in data


def classify(data: bytes) -> str | None:
    """Return ``token``, a terminal's name, or ``None`` for any other event."""
    if data == b"[DONE]":
        return "done"
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    kind = event.get("type")
    if not isinstance(kind, str | None):
        return None
    if kind in TERMINAL_TYPES:
        detail = event.get("error_type") or event.get("code")
        ending = TERMINAL_TYPES[kind]
        return f"error:{detail}" if ending == "error" and detail else ending
    if kind in {"content", "response.output_text.delta"}:
        return "token"
    if kind == "content_block_delta":
        return "token" if _member(event.get("delta"), "text") else None
    if event.get("error") is not None:
        return "error"
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return "token" if _member(_member(first, "delta"), "content") else None


def _member(value: object, key: str) -> object:
    """Return a member of an object; None of what is none, as a gateway may send."""
    return value.get(key) if isinstance(value, dict) else None

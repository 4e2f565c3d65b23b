"""From the bytes of `POST /chat` to its events; pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class NotAStreamError(ValueError):
    """The server sent what is no event stream of ours; says what was expected."""


class EventReader:
    """Reads one response's events; `feed` it in any cuts."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # the pieces of an unfinished line
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, block: bytes) -> list[dict[str, Any]]:
        """Return the events that `block` completes.

        :raises NotAStreamError: an event is no JSON object, or longer than 4 MiB.
        """
        if self._after_cr:  # the CR has ended its line; this is the rest of a CRLF
            block = block.removeprefix(b"\n")
        self._after_cr = block.endswith(b"\r") or (self._after_cr and not block)
        head, *rest = _LINE_END.split(block)
        self._line.append(head)
        self._size += len(block)
        events = []
        for piece in rest:
            event = self._end_line(b"".join(self._line))
            self._line = [piece]
            if event is not None:
                events.append(event)
                self._size = len(block)
        if self._size > MAX_EVENT_BYTES:
            raise NotAStreamError("expected events of at most 4 MiB, got a longer one")
        return events

    def _end_line(self, line: bytes) -> dict[str, Any] | None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        if line or not self._data:
            return None
        payload, self._data = b"\n".join(self._data), []
        try:
            event: dict[str, Any] = msgspec.json.decode(payload, type=dict[str, Any])
        except ValueError as exc:
            raise NotAStreamError(
                "expected events of JSON objects, got something else;"
                " does the URL lead to this kind of server?"
            ) from exc
        return event

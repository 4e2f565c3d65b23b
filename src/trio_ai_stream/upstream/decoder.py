"""From upstream's bytes to items: an SSE parser and the chunk's JSON; pure.

All bytes that have arrived are decoded at once, whatever their cut. Parsing follows
WHATWG HTML section 9.2.6 on bytes: only CR, LF and CRLF end a line, so U+2028 and
U+0085 inside JSON do not. What is buffered is bounded by `max_event_bytes`.
"""

from __future__ import annotations

from typing import Final

from trio_ai_stream.upstream.chunks import items_of_chunk
from trio_ai_stream.wire.events import Comment, Done, Item, Raw

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
_COMMENT: Final = Comment()
_DONE: Final = Done()
_BOM: Final = b"\xef\xbb\xbf"


class MalformedError(Exception):
    """Upstream sent what is not a chat stream; the text says what was expected."""


class Decoder:
    """Decodes one answer; `feed` it in any cuts and get the items in order.

    With `raw=True` each chunk's payload comes first as `Raw`, then what it says. What
    follows `[DONE]` is no part of the answer and is not looked at.
    """

    __slots__ = ("_buffer", "_done", "_max", "_raw", "_start")

    def __init__(
        self, *, raw: bool = False, max_event_bytes: int = MAX_EVENT_BYTES
    ) -> None:
        self._buffer = b""
        self._done = False
        self._max = max_event_bytes
        self._raw = raw
        self._start = True

    def feed(self, data: bytes) -> list[Item]:
        """Return what `data` completes.

        :raises MalformedError: when an event is too large or not a chunk of JSON.
        """
        if self._done:
            return []
        buffer = self._buffer + data if self._buffer else data
        if self._start:
            if len(buffer) < 3 and _BOM.startswith(buffer):
                self._buffer = buffer
                return []
            buffer = buffer.removeprefix(_BOM)
            self._start = False
        if b"\r" in buffer:
            # A CR at the end may be half of a CRLF: it waits for the next byte.
            held = b"\r" if buffer.endswith(b"\r") else b""
            body = buffer[:-1] if held else buffer
            buffer = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        complete, found, self._buffer = buffer.rpartition(b"\n\n")
        if len(self._buffer) > self._max:
            raise MalformedError(
                f"expected events of at most {self._max} bytes, got a longer one"
            )
        items: list[Item] = []
        if found:
            self._events(complete, items)
        return items

    def end(self) -> list[Item]:
        """Return what the end of the body completes: an event without blank line."""
        rest, self._buffer = self._buffer.rstrip(b"\r"), b""
        items: list[Item] = []
        if self._done:
            return items
        self._event(rest, items)
        return items

    def _events(self, block: bytes, items: list[Item]) -> None:
        """Decode whole events, without the blank line after the last."""
        if block.startswith(b"data: "):
            payloads = block[6:].split(b"\n\ndata: ")
            # No other line ends: each event is one line of data, as good as always.
            if block.count(b"\n") == 2 * len(payloads) - 2:
                self._payloads(payloads, items)
                return
        for event in block.split(b"\n\n"):
            if self._done:
                return
            self._event(event, items)

    def _event(self, event: bytes, items: list[Item]) -> None:
        data: list[bytes] = []
        for line in event.split(b"\n"):
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b":"):
                items.append(_COMMENT)
        if data:
            self._payloads([b"\n".join(data)], items)

    def _payloads(self, payloads: list[bytes], items: list[Item]) -> None:
        try:
            for payload in payloads:
                if payload == b"[DONE]":
                    self._done = True
                    self._buffer = b""
                    items.append(_DONE)
                    return
                if self._raw:
                    items.append(Raw(payload))
                items_of_chunk(payload, items)
        except (ValueError, RecursionError) as exc:
            raise MalformedError(
                "expected a chunk of JSON, got something else"
            ) from exc

"""From upstream's bytes to items: an SSE parser and the chunk's JSON; pure.

All bytes that have arrived are decoded at once, whatever their cut. Parsing follows
WHATWG HTML section 9.2.6 on bytes: only CR, LF and CRLF end a line, so U+2028 and
U+0085 inside JSON do not. What is buffered is bounded by `max_event_bytes`, and a byte
is looked at a fixed number of times, however small the pieces.
"""

from __future__ import annotations

import contextlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from trio_ai_stream.upstream.chunks import (
    as_utf8,
    failure_of_error_event,
    read_chunks,
)
from trio_ai_stream.upstream.upstream_errors import MALFORMED
from trio_ai_stream.wire.dialect import ReadEvents
from trio_ai_stream.wire.events import Comment, Done, Identity, Item, Malformed

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
# In a row. A compressed body of some megabytes may hold billions, and hold the loop.
MAX_EMPTY_EVENTS: Final = 100_000
_COMMENT: Final = Comment()
_DONE: Final = Done()


class _Named(msgspec.Struct):
    id: str
    provider: Any = None


_decode_name = msgspec.json.Decoder(_Named).decode


class Decoder:
    """Decodes one answer; `feed` it in any cuts and get the items in order.

    With `raw` each chunk's payload comes first as `Raw`, then what it says. With
    `whole_events` `read` gets each event as it is, with all its fields. With
    `named` the first id of a chunk comes as `Identity`. What follows `[DONE]` is no
    part of the answer and is not looked at. What cannot be read becomes one `Malformed`
    after all that came before it, and is the last item.
    """

    __slots__ = (
        "_after_cr",
        "_buffer",
        "_empty",
        "_max",
        "_nameless",
        "_over",
        "_raw",
        "_read",
        "_start",
        "_whole_events",
        "held",
    )

    def __init__(
        self,
        *,
        raw: bool = False,
        named: bool = False,
        read: ReadEvents = read_chunks,
        whole_events: bool = False,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self._after_cr = False
        self._buffer = bytearray()
        self._empty = 0  # events without an item but comments, in a row
        self._max = max_event_bytes
        self._nameless = named and not whole_events
        self._over = False
        self._raw = raw
        self._read = read
        self._start = True
        self._whole_events = whole_events
        self.held = 0  # bytes of an event that is not complete yet

    def feed(self, data: bytes) -> list[Item]:
        """Return what `data` completes."""
        items: list[Item] = []
        complete = b""
        if self._over:
            return items
        if self._start:
            data = bytes(self._buffer) + data
            self._buffer.clear()
            if len(data) < len(BOM_UTF8) and BOM_UTF8.startswith(data):
                self._buffer += data
                self.held = len(data)
                return items
            data = data.removeprefix(BOM_UTF8)
            self._start = False
        if self._after_cr and data:
            # The CR has ended its line already; this may be the LF that belongs to it.
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        buffer = self._buffer
        if buffer:
            # A blank line may have begun with the last byte that is held.
            end = len(buffer) - 1
            buffer += data
            end = buffer.rfind(b"\n\n", end)
            if end >= 0:
                complete = bytes(buffer[:end])
                self._buffer = buffer[end + 2 :].lstrip(b"\n")
        else:
            complete, found, rest = data.rpartition(b"\n\n")
            end = len(found) - 1
            buffer += rest.lstrip(b"\n")
        if end >= 0:
            if self._raw:
                complete = as_utf8(complete)
            lines: list[bytes] = []
            if complete.startswith(b"data: ") and len(complete) <= self._max:
                lines = complete[6:].split(b"\n\ndata: ")
            # As good as always each event is one line of data, and no other line ends.
            plain = lines and complete.count(b"\n") == 2 * len(lines) - 2
            if not plain or self._whole_events:
                self._events(complete, items)
            elif self._nameless:
                self._decode(lines, items)
            elif (odd := self._read(left := iter(lines), items, self._raw)) is not None:
                self._take_odd(odd, left, items)
            # Mostly the last item tells.
            if items and (
                items[-1] is not _COMMENT or any(one is not _COMMENT for one in items)
            ):
                self._empty = 0
            else:
                self._count_empty(complete.count(b"\n\n") + 1, items)
        self.held = len(self._buffer)
        if self.held > self._max + 1:  # one may be half of the blank line
            self._refuse_length(items)
        return items

    def end(self) -> list[Item]:
        """Return what the end of the body completes: an event without blank line.

        If it cannot be read, it is what was cut off, and dropped (WHATWG, the same).
        """
        rest, self._buffer, self.held = bytes(self._buffer), bytearray(), 0
        items: list[Item] = []
        if not self._over:
            self._events(as_utf8(rest) if self._raw else rest, items)
        self._over = True
        if items and type(items[-1]) is Malformed:
            items.pop()
        return items

    def _events(self, block: bytes, items: list[Item]) -> None:
        """Decode whole events, without the blank line after the last."""
        if len(block) > self._max:
            events = block.split(b"\n\n")
            fit = [len(event.strip(b"\n")) <= self._max for event in events]
            if not all(fit):
                good = events[: fit.index(False)]
                self._events(b"\n\n".join(good), items)
                self._refuse_length(items)
                return
        if self._whole_events:
            self._decode(block.split(b"\n\n"), items)
            return
        for event in block.split(b"\n\n"):
            if self._over:
                return
            self._event(event, items)

    def _event(self, event: bytes, items: list[Item]) -> None:
        data: list[bytes] = []
        error = False
        for line in event.split(b"\n"):
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b":"):
                items.append(_COMMENT)
            elif line.startswith(b"event:"):
                error = line[6:].strip() == b"error"
        if data and error:
            items.append(failure_of_error_event(b"\n".join(data)))
        elif data:
            self._decode([b"\n".join(data)], items)

    def _decode(self, payloads: list[bytes], items: list[Item]) -> None:
        alone = 0  # those that are decoded one by one, up to the first name
        while len(payloads) - alone > 1 and self._nameless and not self._over:
            self._decode(payloads[alone : alone + 1], items)
            alone += 1
        if self._over:
            return
        payloads = payloads[alone:] if alone else payloads
        if self._nameless:
            self._name(payloads[0], items)
        left = iter(payloads)
        if (odd := self._read(left, items, self._raw)) is not None:
            self._take_odd(odd, left, items)

    def _take_odd(self, odd: bytes, left: Iterator[bytes], items: list[Item]) -> None:
        """Decode a payload that is no JSON, and go on with those after it."""
        payload: bytes | None = odd
        # Some upstreams keep a connection alive with an empty one.
        while payload is not None and not payload.strip():
            items.append(_COMMENT)
            payload = self._read(left, items, self._raw)
        if payload is None:
            return
        self._over = True
        if not payload.strip().startswith(b"[DONE]"):
            detail = "expected a chunk of JSON, got something else"
            items.append(Malformed(MALFORMED, detail))
        elif self._whole_events:  # before it, as it passes on after the end only
            items.insert(-1, Done(ends=False))
        else:
            items.append(_DONE)

    def _name(self, payload: bytes, items: list[Item]) -> None:
        with contextlib.suppress(
            msgspec.MsgspecError, UnicodeDecodeError, RecursionError
        ):
            named = _decode_name(payload)
            if named.id:
                provider = named.provider
                known = provider if isinstance(provider, str) else None
                items.append(Identity(named.id, known))
                self._nameless = False

    def _count_empty(self, events: int, items: list[Item]) -> None:
        self._empty += events
        if self._empty > MAX_EMPTY_EVENTS:
            what = f"got {MAX_EMPTY_EVENTS} events without any in a row"
            self._refuse(f"expected content, {what}", items)

    def _refuse_length(self, items: list[Item]) -> None:
        what = f"expected events of at most {self._max} bytes, got a longer one"
        self._refuse(what, items)

    def _refuse(self, detail: str, items: list[Item]) -> None:
        self._buffer.clear()
        self.held = 0
        if not self._over:
            self._over = True
            items.append(Malformed(MALFORMED, detail))

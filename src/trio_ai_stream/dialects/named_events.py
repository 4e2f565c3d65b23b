"""Events that have a name, `event: …`, and say it again in their JSON; pure.

So does Anthropic's Messages API, and OpenAI's Responses. An event is passed on with all
its fields, as it came.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final

import msgspec

from trio_ai_stream.upstream.chunks import load
from trio_ai_stream.wire.dialect import ParsedRequest, ReadEvents
from trio_ai_stream.wire.events import Answer, Comment, Failure, Finish, Item, Raw
from trio_ai_stream.wire.problems import Problem

COMMENT: Final = Comment()
_PING: Final = b"event: ping"
_LAST: Final = {Finish, Failure}
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def data_of(event: bytes) -> bytes:
    """Return the data of an event (WHATWG HTML section 9.2.6); nothing if it has none.

    The lines end with LF.
    """
    name, found, data = event.partition(b"\ndata: ")
    if found and b"\n" not in data and b"\n" not in name and name[:6] == b"event:":
        return data
    lines = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(line.removeprefix(b" ") for line in lines)


def event_reader(kind: type[Any], say: Callable[[Any, list[Item]], None]) -> ReadEvents:
    """Return what reads whole events: as `kind`, of which `say` appends the meaning.

    What is JSON, but of another shape, says nothing and is passed on.
    """
    decode = msgspec.json.Decoder(kind).decode

    def read(events: Iterator[bytes], items: list[Item], _raw: bool) -> bytes | None:
        for event in events:
            data = data_of(event)
            if not data:
                items.append(COMMENT)
                continue
            items.append(Raw(event))
            try:
                say(decode(data), items)
            except _UNREADABLE:
                if data.startswith(b"[DONE]"):
                    return data
                try:
                    said = load(data)
                except (ValueError, RecursionError):
                    items.pop()
                    return data
                with contextlib.suppress(*_UNREADABLE):
                    say(msgspec.convert(said, kind, strict=False), items)
        return None

    return read


def object_of(body: bytes) -> dict[str, Any]:
    """Return a JSON object.

    :raises ValueError: when it is none.
    :raises RecursionError: when it is nested too deeply.
    """
    document = load(body)
    if type(document) is not dict:
        raise ValueError("expected a JSON object")
    return document


class NamedEventEncoder(ABC):
    """Writes one stream: upstream's events as they are.

    Upstream's own `ping` counts as no event: it must not keep our signs of life from
    being written, which more clients take for life. The API's own last event is written
    with the end: a client that has had it may leave at once.
    """

    __slots__ = ("_event_heartbeats", "_final", "_last", "_over")
    opening: ClassVar = b""

    def __init__(self, asked: ParsedRequest, _request_id: str, _upstream: str) -> None:
        self._event_heartbeats = asked.event_heartbeats
        self._last = b""  # the last event, pings apart
        self._over = False  # the API's own last event has come
        self._final = b""  # it, and what came behind it in its block

    def content(self, items: Sequence[Item]) -> tuple[bytes, int]:
        """Return the events of a block, and how many have come that are no `ping`."""
        payloads = [item.payload for item in items if type(item) is Raw]
        if not payloads:
            return b"", 0
        count = len(payloads)
        for payload in reversed(payloads):
            if payload[:11] != _PING:
                self._last = payload
                break
            count -= 1
        kinds = [type(item) for item in items]
        if not self._over and not _LAST.isdisjoint(kinds):
            self._over = True
            last = next(at for at, kind in enumerate(kinds) if kind in _LAST)
            before = max(0, kinds[:last].count(Raw) - 1)
            self._final = _joined(payloads[before:])
            payloads = payloads[:before]
        return _joined(payloads), count

    def ending(self, problem: Problem | None, answer: Answer) -> bytes:
        """Return the API's own last event if it has come, else the error."""
        if problem is None or self._over:
            return self._final
        return self.error(problem, answer)

    @abstractmethod
    def error(self, problem: Problem, _answer: Answer) -> bytes:
        """Return the event that ends a stream that failed."""


def _joined(payloads: Sequence[bytes]) -> bytes:
    return b"".join(payload + b"\n\n" for payload in payloads)


def event(fields: dict[str, Any]) -> bytes:
    """Return an event of ours; its name is its type."""
    return b"event: %b\ndata: %b\n\n" % (
        fields["type"].encode("ascii"),
        msgspec.json.encode(fields),
    )

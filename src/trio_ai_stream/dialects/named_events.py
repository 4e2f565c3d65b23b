"""Events that have a name, `event: …`, and say it again in their JSON; pure.

So does Anthropic's Messages API, and OpenAI's Responses. An event is passed on with all
its fields, as it came.
"""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final

import msgspec

from trio_ai_stream.upstream.chunks import (
    encode,
    failure_in,
    failure_of_error_event,
    load,
)
from trio_ai_stream.wire.dialect import ParsedRequest, ReadEvents
from trio_ai_stream.wire.events import Answer, Comment, Failure, Finish, Item, Raw
from trio_ai_stream.wire.problems import Problem

COMMENT: Final = Comment()
# Types of an event that may hold an error of another API.
UNNAMED: Final = {"", "error"}
_PING: Final = b"event: ping"
_ERROR: Final = re.compile(rb"^event: ?error *$", re.MULTILINE)
_LAST: Final = {Finish, Failure}
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


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
                if data.lstrip().startswith(b"[DONE]"):
                    return data
                try:
                    said = load(data)
                except (ValueError, RecursionError):
                    if not _ERROR.search(event):
                        items.pop()
                        return data
                    note_failure(items)
                else:
                    say(_fitting(said, kind), items)
        return None

    return read


def _fitting(said: Any, kind: type[Any]) -> Any:
    """Return what of `said` has the shape that is expected of it, field by field."""
    fit: dict[str, Any] = {}
    for name, value in said.items() if isinstance(said, dict) else ():
        with contextlib.suppress(*_UNREADABLE):
            msgspec.convert({name: value}, kind)
            fit[name] = value
    return msgspec.convert(fit, kind)


def note_failure(items: list[Item]) -> None:
    """Put the failure that the last event holds in its place, if it holds one."""
    raw = items[-1]
    assert isinstance(raw, Raw)
    data = data_of(raw.payload)
    if _ERROR.search(raw.payload):
        items[-1] = failure_of_error_event(data)
    else:
        with contextlib.suppress(ValueError, RecursionError):
            items[-1] = failure_in(load(data)) or raw


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
    being written, which more clients take for life.
    """

    __slots__ = ("_event_heartbeats", "_last", "_over")
    opening: ClassVar = b""

    def __init__(self, asked: ParsedRequest, _request_id: str, _upstream: str) -> None:
        self._event_heartbeats = asked.event_heartbeats
        self._last = b""  # the last event, pings apart
        self._over = False  # the API's own last event has been written

    def content(self, items: Sequence[Item]) -> tuple[bytes, int]:
        """Return the events of a block, and how many of them are no `ping`."""
        payloads = [item.payload for item in items if type(item) is Raw]
        if not payloads:
            return b"", 0
        count = len(payloads)
        for payload in reversed(payloads):
            if payload[:11] != _PING:
                self._last = payload
                break
            count -= 1
        if not _LAST.isdisjoint(map(type, items)):
            self._over = True
        return b"\n\n".join(payloads) + b"\n\n", count

    def ending(self, problem: Problem | None, answer: Answer) -> bytes:
        """Return nothing after the API's own last event, else the error."""
        return b"" if problem is None or self._over else self.error(problem, answer)

    @abstractmethod
    def error(self, problem: Problem, _answer: Answer) -> bytes:
        """Return the event that ends a stream that failed."""


def event(fields: dict[str, Any]) -> bytes:
    """Return an event of ours; its name is its type."""
    return b"event: %b\ndata: %b\n\n" % (
        fields["type"].encode("ascii"),
        encode(fields),
    )

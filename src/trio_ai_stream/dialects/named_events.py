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
# A last event that goes out with the end must do so in the end's bound.
_LAST_BYTES: Final = 16_384
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


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
            except UNREADABLE:
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
        with contextlib.suppress(*UNREADABLE):
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


class NamedEventEncoder(ABC):
    """Writes one stream: upstream's events as they are.

    Upstream's own `ping` counts as no event: it must not keep our signs of life from
    being written, which more clients take for life. The API's own last event is written
    with the end: a client that has had it may leave at once. A large one is not, as it
    takes as long as the client reads. What upstream sends behind it is not waited for;
    `end_mark` stands for it, so that the end is the same however it was cut.
    """

    __slots__ = ("_event_heartbeats", "_final", "_last", "_over", "held")
    opening: ClassVar = b""
    end_mark: ClassVar = b""

    def __init__(self, asked: ParsedRequest, _request_id: str, _upstream: str) -> None:
        self._event_heartbeats = asked.event_heartbeats
        self._last = b""  # the last event, pings apart
        self._over = False  # the API's own last event has come
        self.held = (0, 0)
        self._final = b""  # what is still to be written of it, and the mark

    def content(self, items: Sequence[Item]) -> tuple[bytes, int]:
        """Return the events of a block, and how many of them are no `ping`."""
        kinds = [type(item) for item in items]
        last = None  # the place of the item that the API's own last event means
        if not self._over:
            last = next((at for at, kind in enumerate(kinds) if kind in _LAST), None)
        shown = items if last is None else items[:last]
        payloads = [item.payload for item in shown if type(item) is Raw]
        if not payloads:
            return b"", 0
        count = len(payloads)
        for payload in reversed(payloads):
            if payload[:11] != _PING:
                self._last = payload
                break
            count -= 1
        if last is not None:
            self._over = True
            if len(payloads[-1]) <= _LAST_BYTES:
                self._final = _joined([payloads.pop()])
                self.held = 1, len(self._final)
                count -= 1
            if kinds[last] is Finish:
                self._final += self.end_mark
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
        encode(fields),
    )

"""Events that have a name, `event: …`, and say it again in their JSON; pure.

So does Anthropic's Messages API, and OpenAI's Responses. An event is passed on with all
its fields, as it came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from trio_ai_stream.upstream.chunks import load
from trio_ai_stream.wire.dialect import ReadEvents
from trio_ai_stream.wire.events import Comment, Item, Raw

COMMENT: Final = Comment()
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


def joined(payloads: list[bytes]) -> bytes:
    """Return whole events as they stand in a stream."""
    return b"\n\n".join(payloads) + b"\n\n" if payloads else b""


def event(fields: dict[str, Any]) -> bytes:
    """Return an event of ours; its name is its type."""
    return b"event: %b\ndata: %b\n\n" % (
        fields["type"].encode("ascii"),
        msgspec.json.encode(fields),
    )

"""The terminal client's event reader."""

from __future__ import annotations

import pytest

from trio_ai_stream.chat_client.chat_exchange import (
    MAX_EVENT_BYTES,
    EventReader,
    NotAStreamError,
)

ONE = {"type": "content", "content": "a\u2028b"}
TEXT = '{"type":"content","content":"a\u2028b"}'.encode()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_events_come_whole_out_of_any_cuts(end: bytes) -> None:
    """Whole, byte by byte and cut in two anywhere, with each of the line ends."""
    wire = b": beat" + end * 2 + b"data: " + TEXT + end * 2 + b"data:{}" + end * 2
    wire += b"x"  # what follows a CR decides what it was
    cuts = [[wire], [wire[i : i + 1] for i in range(len(wire))]]
    cuts += [[wire[:i], wire[i:]] for i in range(len(wire))]
    for blocks in cuts:
        reader = EventReader()
        events = [event for block in blocks for event in reader.feed(block)]
        assert events == [ONE, {}], blocks


@pytest.mark.parametrize(
    "payload", [b"<html>", b"[1]", b"\xff", b'{"a":' + 99_999 * b"["]
)
def test_what_is_no_chunk_is_named(payload: bytes) -> None:
    """A stream of something else is refused with a question about the URL."""
    with pytest.raises(NotAStreamError, match="URL"):
        EventReader().feed(b"data: " + payload + b"\n\n")


@pytest.mark.parametrize("block", [b"x", b"data: x\n"])
def test_what_is_kept_is_bounded(block: bytes) -> None:
    """Neither a line nor an event may grow for ever."""
    reader = EventReader()
    for _ in range(MAX_EVENT_BYTES // 65536 // len(block)):
        reader.feed(block * 65536)
    with pytest.raises(NotAStreamError, match="4 MiB"):
        reader.feed(block * 65536)


def test_the_end_of_a_stream_is_no_event() -> None:
    """`[DONE]` is noted, with blanks around it as well."""
    reader = EventReader()
    assert reader.feed(b"data: {}\n\ndata: [DONE]") == [{}]
    assert not reader.done
    assert reader.feed(b" \n\n") == []
    assert reader.done


def test_a_byte_order_mark_takes_no_event_away() -> None:
    """It may stand before the first line, and only there."""
    reader = EventReader()
    bom = b"\xef\xbb\xbf"
    wire = bom + b'data: {"a":1}\n\n' + bom + b"data: {}\n\n"
    assert [e for i in range(len(wire)) for e in reader.feed(wire[i : i + 1])] == [
        {"a": 1}
    ]


def test_a_byte_that_is_not_utf8_is_replaced() -> None:
    """As SDKs read it; the answer goes on."""
    assert EventReader().feed(b'data: {"a":"x\xffy"}\n\n') == [{"a": "x\ufffdy"}]


def test_half_a_surrogate_pair_and_nan_are_read() -> None:
    """Servers that write what came to them in pieces send such."""
    events = EventReader().feed(b'data: {"a":"\\ud83d","b":Infinity}\n\n')
    assert events == [{"a": "\ud83d", "b": float("inf")}]


def test_a_last_event_needs_no_empty_line() -> None:
    """A server may end behind it; one that was cut is none."""
    for wire, events in ((b"data: {}", 1), (b"data: {}\n", 1), (b'data: {"', 0)):
        reader = EventReader()
        assert reader.feed(wire) == []
        assert reader.end() == [{}] * events


def test_an_id_is_a_number() -> None:
    """Ours are; what is none must not come into a request."""
    reader = EventReader()
    reader.feed(b"id: 7\ndata: {}\n\nid: \xff\x00\ndata: {}\n\n")
    assert reader.last_id == b"7"

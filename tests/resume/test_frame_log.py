"""The log of events, without a loop: numbers, pieces, what is dropped."""

from __future__ import annotations

import re
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.resume.frame_log import OVERHEAD, FrameLog, numbered

TEXTS: Final = st.text(
    st.characters(codec="utf-8", exclude_characters="\n"), max_size=9
)
FRAMES: Final = TEXTS.map(lambda text: f"data: {text}\n\n".encode())
BLOCKS: Final = st.lists(st.lists(FRAMES, max_size=5).map(b"".join), max_size=30)


def plain(data: bytes) -> bytes:
    """The events without their ids."""
    return re.sub(rb"^id: [0-9]+\n", b"", data, flags=re.MULTILINE)


def test_an_event_has_its_id_before_its_data() -> None:
    """The id line is ours alone; an event of several lines gets one."""
    data = b"event: x\ndata: 1\n\nid: abc\ndata: id\n\ndata: a\nid\ndata: b\n\n"
    assert numbered(data, 7) == [
        b"id: 7\nevent: x\ndata: 1\n\n",
        b"id: 8\ndata: id\n\n",
        b"id: 9\ndata: a\ndata: b\n\n",
    ]


@given(BLOCKS, st.integers(1, 100), st.data())
def test_pieces_from_anywhere_are_the_whole(
    blocks: list[bytes], at_most: int, data: st.DataObject
) -> None:
    """What was read up to any event, and what is behind it, are what was appended."""
    log, whole = FrameLog(), b""
    for block in blocks:
        before = log.size
        assert log.append(block) == log.size - before
        whole += block
    events = whole.count(b"\n\n")
    assert log.last == events
    place = data.draw(st.integers(0, events))
    head = b"".join(numbered(whole, 1)[:place])
    rest, reached = b"", place
    while reached < log.last:
        piece, after = log.after(reached, at_most)
        assert after > reached
        assert len(piece) <= at_most or after == reached + 1
        rest, reached = rest + piece, after
    assert head + rest == b"".join(numbered(whole, 1))
    assert plain(head + rest) == whole
    assert log.after(log.last, at_most) == (b"", log.last)


@given(BLOCKS, st.data())
def test_what_is_dropped_is_the_oldest_and_no_more(
    blocks: list[bytes], data: st.DataObject
) -> None:
    """Nothing behind the limit goes; the size is that of what is left."""
    log = FrameLog()
    kept: list[bytes] = []
    for block in blocks:
        kept += numbered(block, log.last + 1)
        log.append(block)
        up_to = data.draw(st.integers(0, log.last))
        wanted = data.draw(st.integers(0, 300))
        first, last, size = log.first, log.last, log.size
        freed = log.drop(up_to, wanted)
        gone = log.first - first
        assert log.last == last
        assert log.first <= max(first, up_to + 1)
        assert freed == sum(len(frame) + OVERHEAD for frame in kept[:gone])
        assert freed >= wanted or log.first == max(first, up_to + 1)
        assert log.size == size - freed
        del kept[:gone]
        assert log.after(log.first - 1, 10**6)[0] == b"".join(kept)


def test_a_long_log_gives_back_the_places_of_what_it_dropped() -> None:
    """The list does not grow with what went through it."""
    log = FrameLog()
    for _ in range(5000):
        log.append(b"data: x\n\n")
        log.drop(log.last - 10, 10**6)
    assert log.last == 5000
    assert len(log._frames) < 300
    assert log.after(4999, 100) == (b"id: 5000\ndata: x\n\n", 5000)

"""The last events of one stream, encoded and numbered from 1; without I/O or clock.

An `id` line stands before the other lines of its event. It is how a browser's
`EventSource` says which event it had last (WHATWG HTML, section 9.2.6).
"""

from __future__ import annotations

import re
from typing import Final

import trio

_END: Final = b"\n\n"
_OWN_ID: Final = re.compile(rb"^id(?::[^\n]*)?(?:\n|\Z)", re.MULTILINE)


def numbered(data: bytes, first: int) -> list[bytes]:
    """Return each whole event of `data` with its id: `first`, and so on.

    An id that an event has from upstream is left out: only ours finds its place again.
    """
    frames = data.split(_END)
    assert not frames.pop(), "expected whole events"
    return [
        b"id: %d\n%b\n\n"
        % (number, _OWN_ID.sub(b"", frame) if b"id" in frame else frame)
        for number, frame in enumerate(frames, first)
    ]


def is_comment(data: bytes) -> bool:
    """Whether there is nothing but a comment, which is no event and gets no id."""
    return data.startswith(b":")


class LogBudget:
    """Counts the bytes of all logs, and wakes who waits for room."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._waiting: set[trio.Event] = set()

    @property
    def full(self) -> bool:
        """Whether there is no room for more."""
        return self.held >= self.limit

    def take(self, size: int) -> None:
        """Count bytes that a log has got."""
        self.held += size

    def give_back(self, size: int) -> None:
        """Count bytes no longer; whoever waits looks again once there is room."""
        was_full = self.full
        self.held -= size
        if was_full and not self.full:
            waiting, self._waiting = self._waiting, set()
            for event in waiting:
                event.set()

    def wake(self, event: trio.Event) -> None:
        """Set `event` once there is room."""
        self._waiting.add(event)

    def forget(self, event: trio.Event) -> None:
        """Set it no more; idempotent."""
        self._waiting.discard(event)


# What CPython needs for a bytes object and its place in a list, besides its bytes.
OVERHEAD: Final = 48
# Taken from the front at once; each removal moves all that stands behind it.
_CUT: Final = 256


class FrameLog:
    """Holds events in order, `first` to `last`; the oldest may be dropped.

    `size` is in bytes, those of the objects around the frames counted.
    """

    __slots__ = ("_dropped", "_frames", "first", "size")

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._dropped = 0  # empty places at the front, not yet taken away
        self.first = 1
        self.size = 0

    @property
    def last(self) -> int:
        """The id of the newest event, 0 before the first."""
        return self.first + len(self._frames) - self._dropped - 1

    def append(self, data: bytes) -> int:
        """Take encoded events, number them, and return by how much the log grew."""
        frames = numbered(data, self.last + 1)
        self._frames += frames
        grown = sum(map(len, frames)) + OVERHEAD * len(frames)
        self.size += grown
        return grown

    def after(self, number: int, at_most: int) -> tuple[bytes, int]:
        """Return the events after `number`, joined, and the id of their last one.

        At least one event if there is any, then no more than `at_most` bytes. All of
        those after `number` must still be here.
        """
        assert number >= self.first - 1, "expected an id that is not dropped"
        begin = end = number - self.first + 1 + self._dropped
        frames, size = self._frames, 0
        while end < len(frames) and (
            end == begin or size + len(frames[end]) <= at_most
        ):
            size += len(frames[end])
            end += 1
        return b"".join(frames[begin:end]), number + end - begin

    def drop(self, up_to: int, at_least: int) -> int:
        """Drop the oldest events, none after `up_to`; return what that freed.

        It ends as soon as `at_least` bytes are free.
        """
        freed = 0
        while freed < at_least and self.first <= min(up_to, self.last):
            freed += len(self._frames[self._dropped]) + OVERHEAD
            self._frames[self._dropped] = b""
            self._dropped += 1
            self.first += 1
        if self._dropped >= _CUT or self._dropped == len(self._frames):
            del self._frames[: self._dropped]
            self._dropped = 0
        self.size -= freed
        return freed

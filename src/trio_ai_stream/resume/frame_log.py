"""The last events of one stream, encoded and numbered from 1; without I/O or clock."""

from __future__ import annotations

from typing import Final

from trio_ai_stream.resume.frames import numbered

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
        """Return the events behind `number`, joined, and the id of their last one.

        At least one event if there is any, then no more than `at_most` bytes. All of
        those behind `number` must still be here.
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
        """Drop the oldest events, none behind `up_to`; return what that freed.

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

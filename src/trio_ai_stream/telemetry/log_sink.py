"""Where log records are written: a descriptor that may never hold the server.

The records are written by the thread that made them, at once: a queue with a writer
thread would lose the last records of a crash, which are the ones that matter, and would
be a thread that no nursery owns. But a plain write to a pipe whose reader has stopped
blocks, and with it every stream of the process. So each piece is written only when
`poll` says that the descriptor has room, in pieces that fit into that room (PIPE_BUF);
otherwise the record is dropped and counted, and the next record that gets through is
preceded by one which says how many were lost.

O_NONBLOCK would be shorter, but it belongs to the open file, not to the descriptor: it
would change the stderr of every process that shares it, and the shell's after us.
What is left: two processes that write to one pipe may both find room for one piece.
Then one of them waits until the reader takes one more piece.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
from collections.abc import Callable
from typing import TextIO

_ROOM = select.PIPE_BUF
"""Bytes that a pipe takes whole once poll reports it as writable (POSIX)."""


class LogSink:
    """Writes finished records to one text stream; never raises, never waits.

    `notice` renders the record that reports how many were dropped.
    """

    def __init__(self, stream: TextIO, notice: Callable[[int], str]) -> None:
        self._stream = stream
        self._notice = notice
        self._descriptor = _descriptor_of(stream)
        self._poll = None if self._descriptor is None else _poll_for(self._descriptor)
        self._torn = False
        self._unreported = 0
        self.dropped = 0

    def write(self, text: str) -> None:
        """Write one record, or drop it and count it."""
        if self._descriptor is None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()
            return
        if self._unreported and self._send(self._notice(self._unreported)):
            self._unreported = 0
        if self._unreported or not self._send(text):
            self.dropped += 1
            self._unreported += 1

    def _send(self, text: str) -> bool:
        # A record that was cut short is closed by a newline before the next one.
        data = text.encode("utf-8", "backslashreplace")
        data = b"\n" + data if self._torn else data
        rest = memoryview(data)
        while rest:
            written = self._write_piece(rest[:_ROOM])
            if not written:
                self._torn = self._torn or len(rest) < len(data)
                return False
            rest = rest[written:]
        self._torn = False
        return True

    def _write_piece(self, piece: memoryview) -> int:
        if self._descriptor is None or self._poll is None:
            return 0
        try:
            ready = self._poll.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT:
                return 0
            return os.write(self._descriptor, piece)
        except OSError:
            # Gone (EPIPE, EBADF, ENOSPC) or full after all (EAGAIN): a log that can't
            # be written has nobody to tell.
            return 0


def _descriptor_of(stream: TextIO) -> int | None:
    """Return the stream's descriptor, or None where it is held in memory."""
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError, io.UnsupportedOperation):
        return None


def _poll_for(descriptor: int) -> select.poll:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return poll

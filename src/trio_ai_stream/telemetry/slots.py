"""The numbers behind the metrics: one flat array for each worker process.

With one process the array is plain memory. With several, each maps a file of its own in
a directory that the workers of one run share; whoever is asked for the metrics adds all
files up. A worker holds an exclusive lock on its file for as long as it lives, and the
kernel drops that lock however it dies. So a file that can be locked belongs to a dead
worker: its counters still count (a counter must never go back), its gauges do not, and
the next worker to start adopts it, counters and all, which bounds the number of files
by the number of workers that ever lived at the same time.

Only the thread that runs Trio writes. Numbers are aligned 64-bit floats, which are
stored and read whole on the processors that CPython runs on.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from trio_ai_stream.telemetry.families import Layout
from trio_ai_stream.telemetry.run_directory import lock_nowait

_HEADER = 16
"""Bytes of the layout's fingerprint: a file of another version is left alone."""

_PATTERN = "metrics-*.bin"


class Slots:
    """One process's numbers, and the sum over all processes of its directory."""

    def __init__(self, layout: Layout, directory: Path | None = None) -> None:
        """Take the file of a dead worker in `directory`, or make one.

        :raises OSError: it cannot be made; no part of it is left.
        """
        self._layout = layout
        self._directory = directory
        self._file: BinaryIO | None = None
        self.numbers: memoryview[float]
        if directory is None:
            self.numbers = _as_floats(bytearray(8 * layout.size))
        else:
            self._file = self._adopt() or self._create()
            mapped = mmap.mmap(self._file.fileno(), self._file_size)
            self.numbers = _as_floats(memoryview(mapped)[_HEADER:])
            for slot in layout.gauge_slots:
                self.numbers[slot] = 0.0

    @property
    def _file_size(self) -> int:
        return _HEADER + 8 * self._layout.size

    def totals(self) -> tuple[list[float], int]:
        """Return the sum over all workers, and how many of them are alive.

        Of a family that is combined by `max` it is the greatest instead of the sum.
        """
        totals = list(self.numbers)
        alive = 1
        for numbers, living in self._others():
            alive += living
            if not living:
                for slot in self._layout.gauge_slots:
                    numbers[slot] = 0.0
            for slot in self._layout.max_slots:
                totals[slot] = max(totals[slot], numbers[slot])
                numbers[slot] = 0.0
            for slot, number in enumerate(numbers):
                totals[slot] += number
        return totals, alive

    def close(self) -> None:
        """Give the file up, as a death would; a later worker adopts its counters.

        What is counted afterwards stays in this process and is in no sum.
        """
        self.numbers = _as_floats(bytearray(self.numbers))
        if self._file is not None:
            # The mapping keeps the file open, and with it the lock, until it is freed.
            fcntl.flock(self._file.fileno(), fcntl.LOCK_UN)
            self._file.close()
            self._file = None

    def _others(self) -> Iterator[tuple[array[float], bool]]:
        """Yield the numbers of each other worker and whether it is alive."""
        if self._directory is None or self._file is None:
            return
        own = os.fstat(self._file.fileno()).st_ino
        for path in sorted(self._directory.glob(_PATTERN)):
            with path.open("rb") as file:  # the disk may have become read-only
                if os.fstat(file.fileno()).st_ino == own:
                    continue
                content = file.read(self._file_size)
                if not self._is_ours(content):
                    continue
                living = not lock_nowait(file.fileno(), fcntl.LOCK_SH)
            yield array("d", content[_HEADER:]), living

    def _adopt(self) -> BinaryIO | None:
        assert self._directory is not None
        for path in sorted(self._directory.glob(_PATTERN)):
            file = path.open("r+b", buffering=0)
            if lock_nowait(file.fileno()) and self._is_ours(file.read(self._file_size)):
                return file
            file.close()
        return None

    def _create(self) -> BinaryIO:
        assert self._directory is not None
        # The name is only unique: who owns a file is told by its lock.
        path = self._directory / f"metrics-{os.getpid()}-{os.urandom(4).hex()}.bin"
        fresh = path.with_suffix(".new")  # until it is whole
        file = fresh.open("x+b", buffering=0)
        try:
            lock_nowait(file.fileno())
            _write_whole(file, self._layout.fingerprint + bytes(8 * self._layout.size))
            fresh.rename(path)
        except OSError as exc:
            file.close()
            fresh.unlink()
            raise OSError(exc.errno, exc.strerror, str(path)) from exc
        return file

    def _is_ours(self, content: bytes) -> bool:
        return (
            len(content) == self._file_size
            and content[:_HEADER] == self._layout.fingerprint
        )


def _as_floats(buffer: bytearray | memoryview) -> memoryview[float]:
    return memoryview(buffer).cast("d")


def _write_whole(file: BinaryIO, content: bytes) -> None:
    if file.write(content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

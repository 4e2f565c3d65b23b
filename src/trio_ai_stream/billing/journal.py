"""Rows on their way to the database: a file that a killed process leaves whole.

A row is appended by one `write` in the step in which its stream ends. It is in the
kernel's page cache then, so a process that is killed loses none. A thread moves the
rows on into the database; a row that was moved twice counts once, by its id. The
process holds a lock on its files, so that the next start knows which were left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SUFFIX: Final = ".journal"
FILE_BYTES: Final = 4 * 1024 * 1024
FILES: Final = 16
READ_BYTES: Final = 1024 * 1024


class _JournalFile:
    """One file; `moved` is how much of it is in the database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = self.moved = 0
        # It gets its name once it is locked: nobody takes it for one that was left.
        fresh = path.with_suffix(".new")
        self.file = os.open(
            fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600
        )
        fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fresh.rename(path)

    def append(self, line: bytes) -> None:
        written = os.write(self.file, line)
        if written < len(line):
            os.ftruncate(self.file, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += written

    def close(self) -> None:
        """Let go of the file; it stays if something is left in it."""
        with contextlib.suppress(OSError):
            if self.moved == self.size:
                self.path.unlink()
            os.close(self.file)


class Journal:
    """The rows of one process that are not in the database yet, in a few files.

    Appending blocks as a write into the page cache does.
    """

    def __init__(self, ledger: Path, worker: str) -> None:
        """Create the first file beside the ledger.

        :raises OSError: it cannot be made there.
        """
        self._ledger = ledger
        self._worker = worker
        self._numbers = itertools.count()
        self._files = deque([self._open()])

    @property
    def empty(self) -> bool:
        """Whether nothing is left to be moved on."""
        return all(file.moved == file.size for file in self._files)

    def append(self, line: bytes) -> None:
        """Append one line, which ends with a newline, whole or not at all.

        :raises OSError: the disk is full, or so are all files.
        """
        if self._files[-1].size > FILE_BYTES:
            if len(self._files) == FILES:
                raise OSError(errno.EFBIG, "the journal is as long as it may be")
            self._files.append(self._open())
        self._files[-1].append(line)

    def read(self) -> bytes:
        """Return the next whole lines, a mebibyte at most; for the thread."""
        file = self._files[0]
        block = os.pread(file.file, READ_BYTES, file.moved)
        return block[: block.rfind(b"\n") + 1]

    def moved(self, size: int) -> None:
        """Forget so many bytes of what was read: they are in the database."""
        file = self._files[0]
        file.moved += size
        if file.moved < file.size:
            return
        if len(self._files) > 1:
            self._files.popleft().close()
        else:
            os.ftruncate(file.file, 0)
            file.size = file.moved = 0

    def close(self) -> None:
        """Let go of the files; one stays if something is left in it."""
        for file in self._files:
            file.close()

    def _open(self) -> _JournalFile:
        name = f"{self._ledger.name}.{self._worker}.{next(self._numbers)}{SUFFIX}"
        return _JournalFile(self._ledger.with_name(name))


def live_workers(ledger: Path) -> set[str]:
    """Return the workers whose journals are there."""
    names = (path.name for path in ledger.parent.glob(f"{ledger.name}.*{SUFFIX}"))
    return {name.removeprefix(f"{ledger.name}.").partition(".")[0] for name in names}


def left_journals(ledger: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield each journal that a dead process left, with what is in it, locked.

    Whoever takes it from here removes it, once its rows are in the database.
    """
    for path in sorted(ledger.parent.glob(f"{ledger.name}.*{SUFFIX}")):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                content = path.read_bytes()
                yield path, content[: content.rfind(b"\n") + 1]
            finally:
                os.close(descriptor)

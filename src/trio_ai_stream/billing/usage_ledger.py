"""The ledger as the loop sees it: rows are put in at once and written by a thread.

`put` appends a row to the journal by one `write`, in the step in which its stream ends.
It is in the kernel's page cache then, so a process that is killed loses none. The
process holds a lock on its journal, so that the next start knows which were left.

One task moves the journal's rows into the database, in batches, by a thread; a row that
was moved twice counts once, by its id. Cancelling the task does not wait for that
thread: what it was writing is still in the journal, and is written again by the next
start. The thread closes the database itself then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio
from loguru import logger

from trio_ai_stream.billing.usage_database import (
    LedgerRow,
    UsageDatabase,
    file_at,
)
from trio_ai_stream.telemetry.metrics import Metrics

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

    @property
    def removed(self) -> bool:
        """Whether somebody has removed it: the next start would not find it."""
        return not os.fstat(self.file).st_nlink

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
        last = self._files[-1] if self._files else None
        if last is None or last.size > FILE_BYTES or last.removed:
            if len(self._files) == FILES:
                raise OSError(errno.EFBIG, "the journal is as long as it may be")
            last = self._open()
            self._files.append(last)
        last.append(line)

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
        """Let go of the files; one stays if something is left in it.

        A line that comes later is in another file, for the next start.
        """
        while self._files:
            self._files.popleft().close()

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


# From one batch to the next. A batch costs about half a millisecond, whatever is in it,
# so ten a second were 5 % of the CPU of a server with few streams.
BATCH_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
LAST_WRITE_S: Final = 1.0
RETENTION_EVERY_S: Final = 3600.0
CLOCK_SLACK_S: Final = 60.0

S = TypeVar("S")
T = TypeVar("T")


class LedgerUnavailableError(RuntimeError):
    """The ledger cannot be read now; the text says why."""


class UsageLedger:
    """The ledger of this process in a file that all processes of the host share."""

    def __init__(self, path: Path, metrics: Metrics, *, retention_s: float) -> None:
        self.worker = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._path = path
        self._metrics = metrics
        self._retention_s = retention_s
        self._journal: Journal | None = None
        self._database: UsageDatabase | None = None
        self._file: tuple[int, int] | None = None  # what the path led to first
        self._broken = False  # whether it was said that rows cannot be written
        self._ended = False  # whoever uses the database from now on closes it
        self._news = trio.Event()
        self._writing = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)  # one thread uses the connection

    def put(self, row: LedgerRow) -> None:
        """Keep a row; never waits, never fails: what cannot be kept is counted."""
        try:
            self._opened_journal().append(msgspec.json.encode(row) + b"\n")
        except OSError as exc:
            self._metrics.ledger_rows_lost()
            self._failed("journal", exc)
        self._news.set()

    async def run(
        self,
        on_open: Callable[[LedgerRow], object],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Write rows until cancelled; then write what is left, within a second.

        Started once what dead workers left is in the database, or could not be put
        there: then that is tried again. `on_open` is given each row whose bill they had
        not settled.
        """
        try:
            try:
                self._opened_journal()  # it also says that this worker is alive
            except OSError as exc:
                self._failed("journal", exc)
            left = await self._tried(self._take_over)
            for row in left or ():
                on_open(row)
            task_status.started()
            async with trio.open_nursery() as nursery:
                if left is None:
                    nursery.start_soon(self._take_over_late, on_open)
                nursery.start_soon(self._forget_old, name="ledger retention")
                await self._write()
        finally:
            self._ended = True
            with trio.move_on_after(LAST_WRITE_S, shield=True):
                await self.flush()
                await self._tried(self._close)
            if self._journal is not None:
                self._journal.close()

    async def flush(self) -> bool:
        """Write what was put in before; False if it could not be."""
        written = True
        while written and self._journal is not None and not self._journal.empty:
            written = await self._write_batch()
        return written

    async def ask(self, question: Callable[[UsageDatabase], T]) -> T:
        """Ask the database, in a thread.

        *Cancellation:* the thread goes on, and the next question waits for it.

        :raises LedgerUnavailableError: it cannot be opened or read.
        """
        try:
            return await self._in_thread(lambda: question(self._opened()))
        except (sqlite3.Error, OSError) as exc:
            self._failed("database", exc)
            raise LedgerUnavailableError(str(exc)) from exc

    async def ask_with_all(
        self, question: Callable[[UsageDatabase], T], note: Callable[[], S]
    ) -> tuple[S, T]:
        """Ask the database when all rows that were put in are there, and no later ones.

        Return what `note` does, which is called in the step in which they are, and the
        answer. *Cancellation:* as `ask`.

        :raises LedgerUnavailableError: rows cannot be written, or nothing be read.
        """
        async with self._writing:
            while self._journal is not None and not self._journal.empty:
                if not await self._move_batch():
                    raise LedgerUnavailableError("rows cannot be written")
            return note(), await self.ask(question)

    def _take_over(self) -> list[LedgerRow]:
        """Put into the database what dead workers left; return their open rows."""
        database = self._opened()
        for path, lines in left_journals(self._path):
            database.put(lines)
            path.unlink(missing_ok=True)
        return database.take_open(self.worker, live_workers(self._path))

    async def _take_over_late(self, on_open: Callable[[LedgerRow], object]) -> None:
        """Take over what dead workers left as soon as that can be done."""
        left, pause = None, BATCH_S
        while left is None:
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            left = await self._tried(self._take_over)
        for row in left:
            on_open(row)

    def _opened_journal(self) -> Journal:
        """Return the journal; only the loop's thread makes it."""
        if self._journal is None:
            self._journal = Journal(self._path, self.worker)
        return self._journal

    async def _write(self) -> None:
        pause = BATCH_S
        while True:
            await self._news.wait()
            self._news = trio.Event()
            written = await self._write_batch()
            if written:
                pause = BATCH_S
            else:
                pause = min(2 * pause, LONGEST_PAUSE_S)
                self._news.set()
            await trio.sleep(pause)

    async def _write_batch(self) -> bool:
        """Move a batch on; return False if it could not be."""
        async with self._writing:
            return await self._move_batch()

    async def _move_batch(self) -> bool:
        journal = self._journal
        if journal is None or journal.empty:
            return journal is not None

        def write() -> int:
            lines = journal.read()
            self._opened().put(lines)
            return len(lines)

        size = await self._tried(write)
        if size is None:
            return False
        journal.moved(size)
        if not journal.empty:
            self._news.set()
        return True

    async def _forget_old(self) -> None:
        """Delete old rows after each hour in which nobody set the clock.

        A machine's clock may be years ahead until its first NTP answer.
        """
        while True:
            wall, monotonic = time.time(), trio.current_time()
            await trio.sleep(RETENTION_EVERY_S)
            set_by = time.time() - wall - (trio.current_time() - monotonic)
            more = abs(set_by) < CLOCK_SLACK_S
            while more:  # in batches, so that rows to be written do not wait for long
                more = bool(await self._tried(self._forget))
                await trio.sleep(BATCH_S)

    def _forget(self) -> bool:
        """Delete one batch of old rows; return whether more may be there."""
        return self._opened().forget(time.time() - self._retention_s)

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _opened(self) -> UsageDatabase:
        """Return the database, opened if it is not.

        Once it was opened, no other file takes its place: SQLite's own files beside it
        may be those of the old one, with which other workers still work.

        :raises sqlite3.Error: it cannot be used; that of `_file` is not there.
        """
        if self._file is not None and file_at(self._path) != self._file:
            self._close()  # what is written there nobody will find
            raise sqlite3.OperationalError(
                "the file was removed or replaced while it was in use: put it back, or"
                " restart the server; rows wait in the journal"
            )
        if self._database is None:
            self._database = UsageDatabase(self._path)
            self._file = file_at(self._path)
        return self._database

    async def _tried(self, work: Callable[[], T]) -> T | None:
        try:
            result = await self._in_thread(work)
        except (sqlite3.Error, OSError) as exc:
            self._failed("database", exc)
            return None
        if self._broken and not self._ended:  # else it may have been closed alone
            self._broken = False
            logger.info("the ledger is written again", event="ledger_back")
        return result

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def use() -> T:
            try:
                return work()
            finally:
                if self._ended:
                    self._close()

        # Not waited for when cancelled: a disk that hangs must not hold a shutdown.
        return await trio.to_thread.run_sync(
            use, abandon_on_cancel=True, limiter=self._limiter
        )

    def _failed(self, kind: str, exc: Exception) -> None:
        self._metrics.ledger_failed(kind)
        if not self._broken:
            self._broken = True
            logger.error(
                "the ledger cannot be written; streams go on without it",
                event="ledger_failed",
                part=kind,
                cause=str(exc),
                file=str(self._path),
            )

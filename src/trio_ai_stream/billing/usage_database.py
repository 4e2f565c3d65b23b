"""The ledger's SQLite file; every method blocks and is called in a thread.

WAL lets any number of processes of one host write, one after the other, while others
read. `synchronous=NORMAL` survives a killed process, and a power failure but for the
last transactions (https://www.sqlite.org/wal.html).

A row is one stream: ids, times, tokens and cost; neither prompt nor key.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from trio_ai_stream.wire.record import Basis, Bill, Record

NANO = 1_000_000_000
"""Costs are kept as whole billionths of a dollar, so that sums are exact."""


class LedgerRow(msgspec.Struct, frozen=True):
    """What the ledger keeps of one stream, which `uid` names for ever.

    Times are Unix seconds, durations milliseconds. `open`: its bill is still looked up;
    `worker` is the process that does.
    """

    uid: str
    worker: str
    open: bool
    ended_at: float
    request_id: str
    generation_id: str | None
    key: str
    user: str | None
    endpoint: str
    model: str
    outcome: str
    usage: Basis
    provider: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    cached_tokens: int | None
    cost_nusd: int | None
    tokens_after_close: int | None
    duration_ms: float
    first_content_ms: float | None

    @property
    def bill(self) -> Bill:
        """The bill that is known so far."""
        return Bill(
            self.usage,
            self.prompt_tokens,
            self.completion_tokens,
            self.reasoning_tokens,
            self.cached_tokens,
            None if self.cost_nusd is None else self.cost_nusd / NANO,
            self.provider,
            self.tokens_after_close,
        )

    def settled(self, bill: Bill) -> LedgerRow:
        """Return the row with its final bill."""
        return msgspec.structs.replace(self, open=False, **_columns(bill))


def row_of(record: Record, *, key: str, worker: str, ended_at: float) -> LedgerRow:
    """Return the row of an ended stream; an estimated bill is open."""
    first = record.first_content_s
    return LedgerRow(
        uid=secrets.token_hex(16),
        worker=worker,
        open=record.bill.basis is Basis.ESTIMATED,
        ended_at=ended_at,
        request_id=record.request_id,
        generation_id=record.generation_id,
        key=key,
        user=record.user,
        endpoint=record.endpoint,
        model=record.model,
        outcome=record.outcome.value,
        duration_ms=round(1000 * record.duration_s, 3),
        first_content_ms=None if first is None else round(1000 * first, 3),
        **_columns(record.bill),
    )


def _columns(bill: Bill) -> dict[str, Any]:
    cost = bill.cost_usd
    return {
        "usage": bill.basis,
        "provider": bill.provider,
        "prompt_tokens": bill.prompt_tokens,
        "completion_tokens": bill.completion_tokens,
        "reasoning_tokens": bill.reasoning_tokens,
        "cached_tokens": bill.cached_tokens,
        "cost_nusd": None if cost is None else round(cost * NANO),
        "tokens_after_close": bill.tokens_after_close,
    }


BUSY_S: Final = 1.0
VERSION: Final = 1
_COLUMNS: Final = LedgerRow.__struct_fields__
_REAL: Final = ("ended_at", "duration_ms", "first_content_ms")
_INTEGER: Final = (
    *("open", "prompt_tokens", "completion_tokens", "reasoning_tokens"),
    *("cached_tokens", "cost_nusd", "tokens_after_close"),
)
_TYPES: Final = dict.fromkeys(_REAL, "REAL") | dict.fromkeys(_INTEGER, "INTEGER")
_CREATE: Final = f"""
CREATE TABLE IF NOT EXISTS streams (
  {", ".join(f"{name} {_TYPES.get(name, 'TEXT')}" for name in _COLUMNS)},
  PRIMARY KEY (uid)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS streams_by_time ON streams (ended_at);
CREATE INDEX IF NOT EXISTS streams_open ON streams (worker) WHERE open;
PRAGMA user_version = {VERSION};
"""
# A row that is settled is never opened again, so that a row may come any number of
# times and in any order.
_PUT: Final = f"""
INSERT INTO streams ({", ".join(_COLUMNS)})
VALUES ({", ".join("?" * len(_COLUMNS))})
ON CONFLICT (uid) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])}
WHERE streams.open
"""  # noqa: S608  the names are those of the class
GROUPS: Final = {
    "key": "key",
    "user": "user",
    "model": "model",
    "provider": "provider",
    "outcome": "outcome",
    "day": "strftime('%Y-%m-%d', ended_at, 'unixepoch')",
}
"""What sums can be asked by, and the column of each."""
SUMS: Final = {
    "streams": "count(*)",
    "prompt_tokens": "sum(prompt_tokens)",
    "completion_tokens": "sum(completion_tokens)",
    "reasoning_tokens": "sum(reasoning_tokens)",
    "cached_tokens": "sum(cached_tokens)",
    "cost_nusd": "sum(cost_nusd)",
    "exact": "sum(usage = 'exact')",
    "reconciled": "sum(usage = 'reconciled')",
    "estimated": "sum(usage = 'estimated')",
    "ended_early": "sum(outcome <> 'completed')",
    "billed_after_close": "sum(tokens_after_close > 0)",
    "tokens_after_close": "sum(tokens_after_close)",
}


def file_at(path: Path) -> tuple[int, int] | None:
    """Return what tells the file at a path from all others; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _at_rest(path: Path) -> bool:
    """Whether nobody has it open, and we may not make the files that WAL needs.

    As with a copy on a read-only disk, or the ledger of another user's server.
    """
    ours = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return not ours and not path.with_name(f"{path.name}-wal").exists()


class UsageDatabase:
    """One connection; used by one thread at a time."""

    def __init__(self, path: Path, *, only_read: bool = False) -> None:
        """Open the file, or make it; to `only_read` it, nothing is made or changed.

        :raises sqlite3.Error: it cannot be opened, or is another program's.
        """
        mode = "rw" if only_read else "rwc"
        if only_read and _at_rest(path):
            mode = "ro&immutable=1"
        self._db = sqlite3.connect(
            f"file:{quote(os.fsencode(path))}?mode={mode}",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._check(may_be_new=not only_read)
            if only_read:
                self._db.execute("PRAGMA query_only = 1")
            else:
                self._prepare()
        except sqlite3.Error:
            self._db.close()
            raise

    def _check(self, *, may_be_new: bool) -> None:
        """Refuse what is no ledger of this version, before anything is written."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        tables = {
            name
            for (name,) in self._db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            )
        }
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(streams)")}
        got = ""
        if tables and "uid" not in columns:
            got = "another program's tables"
        elif version > VERSION:
            got = f"{version}; a newer server wrote it"
        elif not columns >= set(_COLUMNS) and (tables or not may_be_new):
            got = "a table of another shape" if tables else "a file without a table"
        if got:
            raise sqlite3.DatabaseError(
                f"expected a ledger of version {VERSION}, got {got}:"
                " name another LEDGER_FILE"
            )

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_CREATE)

    def put(self, lines: bytes) -> None:
        """Put the rows of a journal in, all or none; a line that is no row is skipped.

        :raises sqlite3.Error: nothing was put in.
        """
        found = filter(None, map(_row, lines.splitlines()))
        rows = [msgspec.structs.astuple(row) for row in found]
        with self._transaction():
            self._db.executemany(_PUT, rows)

    def take_open(self, worker: str, live: Iterable[str]) -> list[LedgerRow]:
        """Make the open rows of all workers that are gone this worker's own.

        Return these; what is its own already is known to it.
        """
        alive = sorted({worker, *live})
        gone = f"open AND worker NOT IN ({', '.join('?' * len(alive))})"
        with self._transaction():
            found = self._db.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM streams"  # noqa: S608
                f" WHERE {gone} ORDER BY ended_at",
                alive,
            ).fetchall()
            self._db.execute(
                f"UPDATE streams SET worker = ? WHERE {gone}",  # noqa: S608
                (worker, *alive),
            )
        named = [dict(zip(_COLUMNS, values, strict=True)) for values in found]
        return [msgspec.convert(row, LedgerRow, strict=False) for row in named]

    def forget(self, before: float, at_most: int = 10_000) -> bool:
        """Delete rows that ended before that time; return whether some may be left."""
        with self._transaction():
            deleted = self._db.execute(
                "DELETE FROM streams WHERE uid IN (SELECT uid FROM streams"
                " WHERE ended_at < ? ORDER BY ended_at LIMIT ?)",
                (before, at_most),
            )
        return deleted.rowcount == at_most

    def sums(
        self,
        by: Sequence[str] = (),
        *,
        since: float = 0.0,
        until: float = 1e12,
        equal: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return sums over the streams that ended in [since, until).

        `by` and the keys of `equal` are out of `GROUPS`. The dearest come first.
        """
        parts = [f"{GROUPS[name]} AS {name}" for name in by]
        parts += [f"{what} AS {name}" for name, what in SUMS.items()]
        where = ["ended_at >= ?", "ended_at < ?"]
        bound: list[Any] = [since, until]
        for name, value in (equal or {}).items():
            where.append(f"{GROUPS[name]} = ?")
            bound.append(value)
        group = f" GROUP BY {', '.join(GROUPS[name] for name in by)}" if by else ""
        found = self._db.execute(
            f"SELECT {', '.join(parts)} FROM streams"  # noqa: S608
            f" WHERE {' AND '.join(where)}{group} ORDER BY cost_nusd DESC",
            bound,
        ).fetchall()
        names = [*by, *SUMS]
        return [dict(zip(names, values, strict=True)) for values in found]

    def spent(self, since: float, until: float) -> dict[str, int]:
        """Return what each key has spent in [since, until), in billionths of a dollar.

        There may be later rows: of a time when the clock was wrong.
        """
        found = self._db.execute(
            "SELECT key, sum(cost_nusd) FROM streams"
            " WHERE ended_at >= ? AND ended_at < ? GROUP BY key",
            (since, until),
        )
        return {key: cost or 0 for key, cost in found}

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write from the beginning on: no lock is to be raised in between."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.rollback()
            raise


_decoder = msgspec.json.Decoder(LedgerRow)


def _row(line: bytes) -> LedgerRow | None:
    try:
        return _decoder.decode(line)
    except msgspec.MsgspecError:
        return None

"""Sums out of the ledger: asked for, shown, and printed by `trio-ai-stream usage`."""

from __future__ import annotations

import argparse
import csv
import io
import re
import sqlite3
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from trio_ai_stream.billing.usage_database import GROUPS, NANO, SUMS, UsageDatabase
from trio_ai_stream.settings import load_settings

_AGO: Final = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS: Final = {"h": 3600, "d": 86_400, "w": 604_800}
FILTERS: Final = ("key", "user", "model", "provider", "outcome")
_SHOWN: Final = {
    "streams": "streams",
    "prompt_tokens": "prompt",
    "completion_tokens": "completion",
    "cost_usd": "cost USD",
    "estimated": "estimated",
    "ended_early": "cut",
    "billed_after_close": "went on",
    "tokens_after_close": "tokens after",
}


class UsageQueryError(ValueError):
    """The question cannot be answered; the text says what was expected."""


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What is asked: sums grouped `by`, over [since, until), of what equals `only`."""

    by: tuple[str, ...] = ("day",)
    since: float = 0.0
    until: float = 1e12
    only: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, said: Mapping[str, str]) -> UsageQuery:
        """Read `by`, `since`, `until` and the filters.

        Times are dates (UTC), or a while ago: `24h`, `7d`, `4w`.

        :raises UsageQueryError: naming what is wrong.
        """
        by = tuple(filter(None, said.get("by", "day").split(",")))
        if unknown := set(by) - GROUPS.keys():
            names = ", ".join(GROUPS)
            raise UsageQueryError(f"by: expected {names}, got {min(unknown)[:40]!r}")
        since, until = said.get("since", ""), said.get("until", "")
        return cls(
            tuple(dict.fromkeys(by)),
            _time("since", since) if since else 0.0,
            _time("until", until) if until else 1e12,
            {name: said[name] for name in FILTERS if said.get(name)},
        )

    def rows(self, database: UsageDatabase) -> list[dict[str, Any]]:
        """Return the sums; blocks."""
        found = database.sums(
            self.by, since=self.since, until=self.until, equal=self.only
        )
        return [in_dollars(row) for row in found]


def as_json(
    query: UsageQuery,
    rows: list[dict[str, Any]],
    budgets: Sequence[Mapping[str, Any]] = (),
    hosts: str = "own",
) -> bytes:
    """Return the sums as one document, with what keys may still spend."""
    return msgspec.json.encode(
        {
            "hosts": hosts,
            "by": query.by,
            "key": query.only.get("key"),
            "rows": rows,
            "budgets": budgets,
        }
    )


def as_csv(query: UsageQuery, rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the sums as CSV (RFC 4180), with a header.

    A cell that a spreadsheet would read as a formula gets an apostrophe in front.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    names = [*query.by, *map(_dollar_name, SUMS)]
    writer.writerow(names)
    writer.writerows([_harmless(row[name]) for name in names] for row in rows)
    return out.getvalue()


def as_table(query: UsageQuery, rows: list[dict[str, Any]]) -> str:
    """Return the sums as a table for people, their total in the last line."""
    names = [*query.by, *_SHOWN]
    lines = [[*query.by, *_SHOWN.values()]]
    lines += [[_shown(name, row[name]) for name in names] for row in rows]
    if len(rows) > 1:
        total = {name: sum(row[name] for row in rows) for name in _SHOWN}
        heads = ["total", *[""] * (len(query.by) - 1)] if query.by else []
        lines.append([*heads, *(_shown(name, total[name]) for name in _SHOWN)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = len(query.by)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _time(name: str, text: str) -> float:
    if ago := _AGO.fullmatch(text):
        return time.time() - int(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError as exc:
        raise UsageQueryError(
            f"{name}: expected a date as 2026-11-26, or 24h, 7d, 4w, got {text[:40]!r}"
        ) from exc


def _dollar_name(name: str) -> str:
    return "cost_usd" if name == "cost_nusd" else name


def in_dollars(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its cost in dollars, and zeros for what nobody said."""
    found = {_dollar_name(name): value for name, value in row.items()}
    found |= {name: found[name] or 0 for name in map(_dollar_name, SUMS)}
    return {**found, "cost_usd": found["cost_usd"] / NANO}


def _harmless(value: Any) -> Any:
    formula = isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"}
    return f"'{value}" if formula else value


def _shown(name: str, value: Any) -> str:
    if name == "cost_usd":
        return f"{value:.6f}"
    if isinstance(value, int):
        return f"{value:,}"
    text = "-" if value is None else str(value)
    return "".join(c if c.isprintable() else "?" for c in text)


def main(argv: Sequence[str]) -> int:
    """Print sums out of the ledger; return the exit status (2: bad usage)."""
    parser = argparse.ArgumentParser(
        prog="trio-ai-stream usage",
        description="Sums over the streams in the ledger.",
        epilog="What departed clients cost last week, by provider: trio-ai-stream usage"
        " --since 7d --outcome client_disconnected --by provider",
    )
    parser.add_argument(
        "--by", default="day", help=f"groups, comma-separated: {', '.join(GROUPS)}"
    )
    parser.add_argument("--since", default="", help="2026-11-26 (UTC), or 24h, 7d, 4w")
    parser.add_argument("--until", default="", help="the same; not included")
    for name in FILTERS:
        parser.add_argument(f"--{name}", default="", help=f"only this {name}")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument("--file", type=Path, help="the ledger (default: LEDGER_FILE)")
    options = parser.parse_args(argv)
    try:
        query = UsageQuery.parse(vars(options))
    except UsageQueryError as exc:
        print(f"usage: {exc}", file=sys.stderr)
        return 2
    # It is only read, maybe from a copy or a disk that nobody can write to.
    path = options.file or load_settings(unopened=True).LEDGER_FILE
    try:
        there, why = path is not None and path.is_file(), "no file"
    except OSError as exc:  # a folder that this user may not look into
        there, why = False, str(exc.strerror)
    if path is None or not there:
        got = "none" if path is None else f"{why} at {path}"
        advice = "name it with --file, or set LEDGER_FILE as the server has it"
        print(f"usage: expected a ledger, got {got}; {advice}", file=sys.stderr)
        return 2
    try:
        with closing(UsageDatabase(path, only_read=True)) as database:
            rows = query.rows(database)
    except sqlite3.Error as exc:
        print(f"usage: {path}: {exc}", file=sys.stderr)
        return 2
    if options.format == "json":
        print(as_json(query, rows).decode())
    elif options.format == "csv":
        print(as_csv(query, rows), end="")
    else:
        print(as_table(query, rows))
    return 0

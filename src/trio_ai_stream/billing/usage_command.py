"""`trio-ai-stream usage`: what the ledger of this host says, as a table."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from trio_ai_stream.billing.usage_database import GROUPS, UsageDatabase
from trio_ai_stream.billing.usage_report import (
    FILTERS,
    UsageQuery,
    UsageQueryError,
    as_csv,
    as_json,
    as_table,
)
from trio_ai_stream.settings import load_settings


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
    path = options.file or load_settings().LEDGER_FILE
    if path is None or not path.is_file():
        print(f"usage: expected a ledger, got {path}; set LEDGER_FILE", file=sys.stderr)
        return 2
    try:
        query = UsageQuery.parse(vars(options))
        database = UsageDatabase(path)
    except (UsageQueryError, sqlite3.Error) as exc:
        print(f"usage: {exc}", file=sys.stderr)
        return 2
    rows = query.rows(database)
    database.close()
    if options.format == "json":
        print(as_json(query, rows).decode())
    elif options.format == "csv":
        print(as_csv(query, rows), end="")
    else:
        print(as_table(query, rows))
    return 0

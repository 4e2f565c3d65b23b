"""``report``: everything that can be derived from results files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cancel_lab import records
from cancel_lab.report.write import write_report
from cancel_lab.session import MANIFEST
from cancel_lab.subcommands.shared import (
    Subparsers,
    UsageError,
    finished,
)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "report", help="tables, plots, HTML and traces from results files"
    )
    parser.add_argument("results", nargs="+", type=Path, help="results.jsonl files")
    parser.add_argument("--trace", action="append", default=[], type=Path)
    parser.add_argument("--out", type=Path, default=Path("lab-results/report"))
    parser.set_defaults(run_lab=_report)


def _report(arguments: argparse.Namespace) -> int:
    if not any(True for _ in records.read(arguments.results)):
        named = ", ".join(str(path) for path in arguments.results)
        raise UsageError(f"{named}: expected at least one run record, got none")
    beside = arguments.results[0].parent / MANIFEST
    content = json.loads(beside.read_text()) if beside.exists() else None
    text = write_report(
        arguments.results, arguments.out, traces=arguments.trace, manifest=content
    )
    return finished(text, arguments.out, bad=0)

"""The command line of the instrument: ``trio-ai-stream lab COMMAND``."""

from __future__ import annotations

import argparse
import sys

from trio_ai_stream.lab.records import RecordError
from trio_ai_stream.lab.session import FolderTakenError
from trio_ai_stream.lab.subcommands import burst, matrix, mutants, probe, report, sweep
from trio_ai_stream.lab.subcommands.shared import Subparsers, UsageError

COMMANDS = (
    probe,
    matrix,
    burst,
    report,
    sweep,
    mutants,
)  # each has add_parser, which sets run_lab


def add_parsers(subparsers: Subparsers) -> None:
    """Add the instrument's commands to a command's sub-commands."""
    for command in COMMANDS:
        command.add_parser(subparsers)


def run(arguments: argparse.Namespace) -> int:
    """Run the command that was parsed; 0 is well, 1 violations, 2 bad usage."""
    try:
        status: int = arguments.run_lab(arguments)
    except (FolderTakenError, RecordError, UsageError, OSError) as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return 2
    return status

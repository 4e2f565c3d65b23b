"""The command line of the instrument: ``cancel-lab COMMAND``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cancel_lab.campaign import PlanError
from cancel_lab.records import RecordError
from cancel_lab.session import FolderTakenError, SimulatorMissingError
from cancel_lab.subcommands import burst, campaign, install, matrix, probe, report
from cancel_lab.subcommands.shared import UsageError

# Each has `add_parser`, which sets `run_lab`.
COMMANDS = (probe, matrix, burst, campaign, install, report)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="cancel-lab",
        description="Measures what a cancel does, in any chat server.",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Parse the command line and run it; 0 is well, 1 violations, 2 bad usage."""
    arguments = make_parser().parse_args(words)
    try:
        status: int = arguments.run_lab(arguments)
    except (
        FolderTakenError,
        PlanError,
        RecordError,
        SimulatorMissingError,
        UsageError,
        OSError,
    ) as exc:
        print(f"cancel-lab: {exc}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())

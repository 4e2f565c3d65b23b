"""``campaign``: all that is published, from one plan."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from cancel_lab.campaign import publish, ran, read_plan, run
from cancel_lab.subcommands.shared import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "campaign", help="run the steps of a plan, one after the other"
    )
    parser.add_argument("plan", type=Path, help="JSON: within_s, and steps")
    parser.add_argument(
        "--out", type=Path, required=True, help="a folder for all steps"
    )
    parser.add_argument(
        "--publish", type=Path, help="copy records, manifests and summaries there"
    )
    parser.set_defaults(run_lab=_campaign)


def _campaign(arguments: argparse.Namespace) -> int:
    """Run it; 0 if every step measured to its end, whatever it found.

    SIGTERM is as Ctrl-C: the step under way is broken off, and ends its servers.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    came = run(read_plan(arguments.plan), arguments.out, print)
    if arguments.publish:
        for folder in publish(arguments.out, arguments.publish):
            print(f"published in {folder}")
    return 0 if all(map(ran, came)) else 1

"""``mutants``: which broken variants of the program the sweep finds."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from trio_ai_stream.lab.mutants.catalogue import MUTANTS
from trio_ai_stream.lab.mutants.trial import kill_table, trial
from trio_ai_stream.lab.progress import Progress
from trio_ai_stream.lab.subcommands.shared import Subparsers

ARMS = ("sweep", "random", "one-task")


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "mutants", help="break the program on purpose and see who notices"
    )
    parser.add_argument(
        "--mutant", action="append", choices=["none", *MUTANTS], help="repeatable"
    )
    parser.add_argument("--arm", action="append", choices=ARMS, help="repeatable")
    parser.add_argument(
        "--budget", type=int, default=3000, help="runs for each mutant and arm"
    )
    parser.add_argument("--jsonl", type=Path, help="write a verdict a line here")
    parser.set_defaults(run_lab=_mutants)


def _mutants(arguments: argparse.Namespace) -> int:
    names = arguments.mutant or ["none", *MUTANTS]
    arms = arguments.arm or ARMS
    verdicts = []
    with Progress("mutants", len(names) * len(arms)) as progress:
        for name in names:
            for arm in arms:
                verdicts.append(trial(name, arm, arguments.budget))
                progress.advance(f"{name}, {arm}")
    if arguments.jsonl:
        lines = [msgspec.json.encode(verdict) + b"\n" for verdict in verdicts]
        arguments.jsonl.write_bytes(b"".join(lines))
    mistakes = {mutant.name: mutant.mistake for mutant in MUTANTS.values()}
    print(kill_table(verdicts, mistakes))
    sweeps = [one for one in verdicts if one.arm == "sweep"]
    wrong = any(one.killed == (one.mutant == "none") for one in sweeps)
    return 1 if wrong else 0

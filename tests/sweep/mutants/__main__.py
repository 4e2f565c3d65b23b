"""`python -m tests.sweep.mutants`: which broken variants the sweep finds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from cancel_lab.progress import Progress
from tests.sweep.mutants.catalogue import MUTANTS
from tests.sweep.mutants.trial import kill_table, trial

ARMS = ("sweep", "random", "one-task")


def main() -> int:
    """Parse the command line and run it; 1: a mutant survived the sweep."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sweep.mutants",
        description="Break the program on purpose and see who notices.",
    )
    parser.add_argument(
        "--mutant", action="append", choices=["none", *MUTANTS], help="repeatable"
    )
    parser.add_argument("--arm", action="append", choices=ARMS, help="repeatable")
    parser.add_argument(
        "--budget", type=int, default=4000, help="runs for each mutant and arm"
    )
    parser.add_argument("--jsonl", type=Path, help="write a verdict a line here")
    arguments = parser.parse_args()
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


if __name__ == "__main__":
    sys.exit(main())

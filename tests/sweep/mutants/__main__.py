"""`python -m tests.sweep.mutants`: which broken variants the sweep finds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from cancel_lab.progress import Progress
from tests.sweep.mutants.catalogue import MUTANTS
from tests.sweep.mutants.trial import kill_table, trial
from tests.sweep.mutants.verdict import Verdict

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
        "--budget", type=int, default=1500, help="runs for each mutant and arm"
    )
    parser.add_argument(
        "--record", type=Path, help="write to this file; continue what it holds"
    )
    arguments = parser.parse_args()
    names = arguments.mutant or ["none", *MUTANTS]
    arms = arguments.arm or ARMS
    path, verdicts = arguments.record, list[Verdict]()
    if path is not None and path.exists():
        verdicts = msgspec.json.decode(path.read_bytes(), type=list[Verdict])
    known = {(one.mutant, one.arm) for one in verdicts}
    todo = [(x, y) for x in names for y in arms if (x, y) not in known]
    with Progress("mutants", len(todo)) as progress:
        for name, arm in todo:
            verdicts.append(trial(name, arm, arguments.budget))
            progress.advance(f"{name}, {arm}")
            if path is not None:
                document = msgspec.json.format(msgspec.json.encode(verdicts), indent=1)
                path.write_bytes(document + b"\n")
    mistakes = {mutant.name: mutant.mistake for mutant in MUTANTS.values()}
    print(kill_table(verdicts, mistakes))
    sweeps = [one for one in verdicts if one.arm == "sweep"]
    wrong = any(one.killed == (one.mutant == "none") for one in sweeps)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

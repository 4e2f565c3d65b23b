"""`python -m tests.sweep`: cancel at every boundary; or replay one such run.

Exit status 0: nothing found; 1: violations; 2: bad usage.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path

from cancel_lab import records, timeline
from cancel_lab.drawing import in_steps, timeline_of
from cancel_lab.progress import Progress
from tests.sweep.plan import FULL, QUICK, Plan
from tests.sweep.replay import replay
from tests.sweep.report import report
from tests.sweep.rows import row
from tests.sweep.run import Run, quiet
from tests.sweep.scenario import TARGET
from tests.sweep.scenarios import SCENARIOS
from tests.sweep.sweep import Sweep
from tests.sweep.token import Token, TokenError


def main() -> int:
    """Parse the command line and run it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sweep",
        description="Cancel one stream at every scheduling boundary, in memory.",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="one seed, one cause a boundary (default)"
    )
    size.add_argument(
        "--full",
        action="store_true",
        help="every cause and scope, pairs of causes, seeds until no state is new",
    )
    parser.add_argument("--seeds", type=int, help="exactly so many seeds")
    parser.add_argument(
        "--scenario", action="append", choices=list(SCENARIOS), help="repeatable"
    )
    parser.add_argument("--jsonl", type=Path, help="write a row for each run here")
    parser.add_argument(
        "--replay", metavar="TOKEN", help="run one run, print its trace"
    )
    parser.add_argument(
        "--trace", type=Path, help="with --replay: write its Chrome trace here"
    )
    parser.add_argument(
        "--timeline",
        type=Path,
        help="with --trace: write it for `cancel-lab report --trace`",
    )
    arguments = parser.parse_args()
    if arguments.replay:
        try:
            token = Token.parse(arguments.replay)
            text, bad = replay(token, arguments.trace)
        except (TokenError, KeyError) as exc:
            print(f"no such run: {exc}", file=sys.stderr)
            return 2
        if arguments.timeline and arguments.trace:
            whole = timeline_of(arguments.trace)
            timeline.write(arguments.timeline, in_steps(whole, TARGET))
        print(text, end="")
        return 1 if bad else 0
    plan = _plan(arguments)
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet())
        progress = stack.enter_context(Progress(f"sweep, {plan.name}", None))
        out = arguments.jsonl and stack.enter_context(records.Writer(arguments.jsonl))

        def each(done: Run) -> None:
            progress.advance(done.token.scenario)
            if out:
                out.write(row(done))

        findings = Sweep(plan, each).run()
    print(report(plan, findings), end="")
    return 1 if findings.violations else 0


def _plan(arguments: argparse.Namespace) -> Plan:
    plan = FULL if arguments.full else QUICK
    if arguments.scenario:
        plan = dataclasses.replace(plan, scenarios=tuple(arguments.scenario))
    if arguments.seeds is not None:
        plan = dataclasses.replace(plan, seeds=arguments.seeds, exact_seeds=True)
    return plan


if __name__ == "__main__":
    sys.exit(main())

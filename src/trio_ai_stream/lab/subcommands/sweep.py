"""``sweep``: cancel at every boundary; or replay one such run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path

from trio_ai_stream.lab import records, timeline
from trio_ai_stream.lab.drawing import in_steps, timeline_of
from trio_ai_stream.lab.progress import Progress
from trio_ai_stream.lab.subcommands.shared import Subparsers
from trio_ai_stream.lab.sweep.plan import FULL, QUICK, Plan
from trio_ai_stream.lab.sweep.replay import replay
from trio_ai_stream.lab.sweep.report import report
from trio_ai_stream.lab.sweep.rows import row
from trio_ai_stream.lab.sweep.run import Run, quiet
from trio_ai_stream.lab.sweep.scenario import TARGET
from trio_ai_stream.lab.sweep.scenarios import SCENARIOS
from trio_ai_stream.lab.sweep.sweep import Sweep
from trio_ai_stream.lab.sweep.token import Token, TokenError


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "sweep", help="cancel one stream at every scheduling boundary, in memory"
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
        "--timeline", type=Path, help="with --trace: write it for `lab report --trace`"
    )
    parser.set_defaults(run_lab=_sweep)


def _sweep(arguments: argparse.Namespace) -> int:
    if arguments.replay:
        try:
            token = Token.parse(arguments.replay)
            text, bad = replay(token, arguments.trace)
        except (TokenError, KeyError) as exc:
            print(f"lab sweep: no such run: {exc}", file=sys.stderr)
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

"""`python -m tests.sweep`: cancel at every boundary; or replay one such run.

Exit status 0: nothing found; 1: violations; 2: bad usage, or interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cancel_lab import timeline
from cancel_lab.drawing import in_steps, timeline_of
from tests.resume.pairs import PLAIN, STREAMS
from tests.resume.pairs import sweep_all as sweep_all_pairs
from tests.sweep.programs import program, quiet
from tests.sweep.recorded import Recorder
from tests.sweep.scenarios import SCENARIOS
from tests.sweep.sweeping import Findings, plans, sweep_all, text_of
from trio_sweep import MisuseError, SweepInterruptedError, TrioChangedError
from trio_sweep.engine import Sweep
from trio_sweep.parallel import default_jobs
from trio_sweep.plan import Plan
from trio_sweep.replay import replay


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run it."""
    options = _parser().parse_args(arguments)
    findings = Findings()
    try:
        if options.replay is not None:
            return _replay(options)
        return _sweep(options, findings)
    except (MisuseError, TrioChangedError) as exc:
        print(f"tests.sweep: {exc}", file=sys.stderr)
    except KeyboardInterrupt as exc:
        if isinstance(exc, SweepInterruptedError):
            print(text_of(findings))
        print("tests.sweep: interrupted: what was not reached is not known")
        return 1 if findings.violations() else 2
    except OSError as exc:
        print(f"tests.sweep: {exc.filename}: {exc.strerror}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sweep",
        description="Cancel one stream at every scheduling boundary, in memory.",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="one seed, one cause a state (default)"
    )
    size.add_argument(
        "--full",
        action="store_true",
        help="every cause and scope, pairs of causes, seeds until no state is new",
    )
    size.add_argument(
        "--resume",
        type=int,
        metavar="N",
        help="lose and find a client at each N-th step and each N-th after it; nothing"
        " else (--full does it as well, at every one)",
    )
    add = parser.add_argument
    add(
        "--stream",
        action="append",
        choices=list(STREAMS),
        help=f"with --resume: lose and find a client of this one; by default {PLAIN}",
    )
    add("--seeds", type=int, help="exactly so many seeds")
    add("--scenario", action="append", choices=list(SCENARIOS), help="repeatable")
    add("--jobs", type=int, help="processes; by default one for each core")
    add("--json", action="store_true", help="print a report for each scenario as JSON")
    add("--record", type=Path, help="write to this file; continue what it holds")
    add("--replay", metavar="TOKEN", help="run one run, print its steps")
    add("--trace", type=Path, help="with --replay: write its Chrome trace here")
    add(
        "--timeline",
        type=Path,
        help="with --trace: write it for `cancel-lab report --trace`",
    )
    return parser


def _sweep(options: argparse.Namespace, findings: Findings) -> int:
    if options.trace or options.timeline:
        raise MisuseError("expected --trace and --timeline with --replay only")
    jobs = default_jobs() if options.jobs is None else options.jobs
    if options.resume is not None:
        streams = options.stream or [PLAIN]
        return 0 if _resume(options.resume, jobs, options.record, streams) else 1
    made = plans(options.scenario or SCENARIOS, full=options.full)
    recorder = None
    if options.record is not None:
        recorder = Recorder(options.record, "full" if options.full else "quick")
        for name in recorder.recorded.scenarios:
            made.pop(name, None)
    for plan in made.values():
        plan.seeds = options.seeds if options.seeds is not None else plan.seeds
        plan.jobs = jobs
        plan.__post_init__()
    sweep_all(made, findings, *([recorder.add] if recorder else []))
    if options.json:
        found = {n: json.loads(one.to_json()) for n, one in findings.reports.items()}
        print(json.dumps(found, indent=1, sort_keys=True))
    else:
        print(text_of(findings))
    clean = findings.clean
    if options.full and not (options.scenario or options.json):
        clean &= _resume(1, jobs)
    return 0 if clean else 1


def _resume(
    stride: int,
    jobs: int,
    record: Path | None = None,
    streams: Sequence[str] = (PLAIN,),
) -> bool:
    """Sweep the streams that a client comes back to; return whether all was well."""
    if stride < 1:
        raise MisuseError(f"expected --resume 1 or more, got {stride}")
    clean = True
    for name, tried in sweep_all_pairs(stride, jobs, record, streams):
        found = tried.violations
        print(
            f"resuming {name}: {tried.runs} runs, {len(found)} violations", flush=True
        )
        for problem in found[:20]:
            print(f"  {problem}")
        clean &= not found
    return clean


def _replay(options: argparse.Namespace) -> int:
    text, holds = replay_token(options.replay, options.trace)
    if options.timeline is not None:
        if options.trace is None:
            raise MisuseError("expected --timeline with --trace: it is drawn from that")
        timeline.write(options.timeline, in_steps(timeline_of(options.trace), "body"))
    print(text)
    return 0 if holds else 1


def replay_token(text: str, trace: Path | None = None) -> tuple[str, bool]:
    """Run `SCENARIO:TOKEN`; return what happened, and whether all was well.

    :raises MisuseError: when there is no such run.
    """
    scenario, _, token = text.partition(":")
    if scenario not in SCENARIOS or not token:
        raise MisuseError(
            "expected SCENARIO:SEED, SCENARIO:SEED:K:CAUSE or"
            f" SCENARIO:SEED:K:CAUSE+K:CAUSE; got {text!r}"
        )
    with quiet():
        return replay(
            Sweep(program(SCENARIOS[scenario]), Plan(), scenario), token, trace
        )


if __name__ == "__main__":
    sys.exit(main())

"""The command `trio-sweep`: sweep a function of a file or a module."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import inspect
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from trio_sweep.engine import Plan, Sweep
from trio_sweep.errors import MisuseError, SweepInterruptedError, TrioChangedError
from trio_sweep.parallel import default_jobs
from trio_sweep.program import Cause, Program
from trio_sweep.replay import replay

CLEAN: Final = 0
VIOLATED: Final = 1
MISUSED: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0: nothing found, 1: something was, 2: it could not be done."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        return _run(options)
    except (MisuseError, TrioChangedError) as exc:
        print(f"trio-sweep: {exc}", file=sys.stderr)
    except SweepInterruptedError as exc:
        print(exc)
        return VIOLATED if exc.report.findings else MISUSED
    except KeyboardInterrupt:
        print("trio-sweep: interrupted; nothing was found out", file=sys.stderr)
    except OSError as exc:
        print(f"trio-sweep: {exc.filename}: {exc.strerror}", file=sys.stderr)
    return MISUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-sweep",
        description="Cancel an async function wherever a cancel can land.",
        epilog="exit status: 0 nothing was found, 1 something was, 2 it cannot be done",
    )
    add = parser.add_argument
    add(
        "target",
        metavar="TARGET",
        help="FILE.py:NAME or module:NAME: the body, or a trio_sweep.Program",
    )
    add(
        "--world",
        metavar="NAME",
        help="async context manager; the body takes its value",
    )
    add("--after", metavar="NAME", help="async function that must work afterwards")
    add("--check", metavar="NAME", help="function that returns complaints")
    add("--causes", metavar="NAME", help="list of trio_sweep.Cause")
    add("--seeds", type=int, help="how many; by default until no state is new")
    add("--pairs", action="store_true", help="also every ordered pair of causes")
    add("--no-scopes", action="store_true", help="cancel the outer scope only")
    add("--package", action="append", default=[], help="count its await sites")
    add(
        "--allow",
        action="append",
        default=[],
        metavar="INVARIANT=REASON",
        help="do not count violations of this invariant",
    )
    add("--settle", type=float, default=0.0, metavar="S", help="for real sockets")
    add("--jobs", type=int, help="processes; by default one for each core")
    add("--json", action="store_true", help="print the report as JSON")
    add("--replay", metavar="TOKEN", help="run this token once, step by step")
    add("--trace", type=Path, metavar="FILE", help="with --replay: for ui.perfetto.dev")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.trace is not None and options.replay is None:
        raise MisuseError("expected --trace together with --replay: it draws one run")
    sweep = _sweep_of(options)
    if options.replay is not None:
        text, holds = replay(sweep, options.replay, options.trace)
        print(text)
        return CLEAN if holds else VIOLATED
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        report = sweep.run()  # the body's own output, many times over, helps nobody
    print(report.to_json() if options.json else report)
    return CLEAN if report.clean else VIOLATED


def _sweep_of(options: argparse.Namespace) -> Sweep:
    where, _, name = options.target.rpartition(":")
    if not where or not name:
        raise MisuseError(
            f"expected FILE.py:NAME or module:NAME; got {options.target!r}"
        )
    module = _load(where)

    def find(what: str | None) -> Any:
        if what is None:
            return None
        if not hasattr(module, what):
            raise MisuseError(f"expected {what!r} in {where}; it has no such name")
        return getattr(module, what)

    body, world = find(name), find(options.world)
    if isinstance(body, Program):
        return _sweep(options, body)
    if not inspect.iscoroutinefunction(body):
        raise MisuseError(f"expected an async function; {options.target} is none")
    required = [
        one.name
        for one in inspect.signature(body).parameters.values()
        if one.default is one.empty and one.kind is not one.VAR_POSITIONAL
    ]
    if len(required) != (world is not None):
        expected = "no argument" if world is None else "one argument, for --world"
        raise MisuseError(f"expected a function of {expected}; it takes {required}")
    causes: list[Cause] = find(options.causes) or []
    program = Program(
        body,
        world,
        find(options.after),
        find(options.check),
        causes={cause.name: cause for cause in causes},
        settle_s=options.settle,
    )
    return _sweep(options, program)


def _sweep(options: argparse.Namespace, program: Program) -> Sweep:
    plan = Plan(
        options.seeds,
        not options.no_scopes,
        options.pairs,
        default_jobs() if options.jobs is None else options.jobs,
        {key: why for key, _, why in (one.partition("=") for one in options.allow)},
        options.package,
    )
    sweep = Sweep(program, plan, options.target, _progress())
    sweep.report.replay = _again(options)
    return sweep


def _again(options: argparse.Namespace) -> str:
    """Return the command that replays a token of this sweep."""
    parts = ["trio-sweep", options.target]
    for name in ("world", "after", "check", "causes"):
        if (value := getattr(options, name)) is not None:
            parts += [f"--{name}", value]
    if options.settle:
        parts += ["--settle", str(options.settle)]
    return (
        shlex.join(parts).replace("{", "{{").replace("}", "}}") + " --replay '{token}'"
    )


def _load(where: str) -> Any:
    """Import a module by its name or its file."""
    if not where.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as exc:
            raise MisuseError(f"expected a module; {where!r}: {exc}") from exc
    path = Path(where)
    if not path.is_file():
        raise MisuseError(f"expected a file; {where!r} is none")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _progress() -> Callable[[int, int, int], None] | None:
    """Write how far the sweep is to a terminal, at most ten times a second."""
    if not sys.stderr.isatty():
        return None
    begin, seed_now, last = time.monotonic(), -1, 0.0

    def tell(seed: int, done: int, of: int) -> None:
        nonlocal begin, seed_now, last
        now = time.monotonic()
        if seed != seed_now:
            begin, seed_now = now, seed
        if now - last < 0.1 and done < of:
            return
        last = now
        left = (now - begin) / done * (of - done)
        text = f"\rseed {seed}: {done} of {of} points, about {left:.0f} s left "
        sys.stderr.write(text if done < of else "\r" + " " * len(text) + "\r")
        sys.stderr.flush()

    return tell


if __name__ == "__main__":
    sys.exit(main())

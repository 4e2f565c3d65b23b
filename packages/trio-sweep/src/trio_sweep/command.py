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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from trio_sweep.engine import Sweep
from trio_sweep.errors import (
    MisuseError,
    RunFailedError,
    SweepInterruptedError,
    TrioChangedError,
)
from trio_sweep.parallel import default_jobs
from trio_sweep.plan import Plan
from trio_sweep.program import Program, causes_by_name
from trio_sweep.replay import replay
from trio_sweep.run import Ended

CLEAN: Final = 0
VIOLATED: Final = 1
MISUSED: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0: nothing found, 1: something was, 2: it could not be done."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        return _run(options)
    except (MisuseError, RunFailedError, TrioChangedError) as exc:
        print(f"trio-sweep: {exc}", file=sys.stderr)
    except SweepInterruptedError as exc:
        print(exc)
        return VIOLATED if exc.report.findings else MISUSED
    except KeyboardInterrupt:
        print("trio-sweep: interrupted; nothing was found out", file=sys.stderr)
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        print(f"trio-sweep: {where}{exc.strerror}", file=sys.stderr)
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
    if options.replay is not None:
        if options.json:
            raise MisuseError("expected --json without --replay, which prints steps")
        sweep = _sweep_of(options)
        text, holds = replay(sweep, options.replay, options.trace)
        print(text)
        return CLEAN if holds else VIOLATED
    with _silenced():  # the body's own output, many times over, helps nobody
        report = _sweep_of(options).run()
    print(report.to_json() if options.json else report)
    return CLEAN if report.clean else VIOLATED


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Let nothing but the report reach the standard output.

    It is the descriptor that leads elsewhere, since processes of the program write
    there too, and loggers keep the object.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


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
        given = [
            f"--{name}"
            for name in ("world", "after", "check", "causes", "settle")
            if getattr(options, name)
        ]
        if given:
            raise MisuseError(
                f"expected {' and '.join(given)} inside of {options.target}: it is a"
                " Program"
            )
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
    program = Program(
        body,
        world,
        find(options.after),
        find(options.check),
        causes=causes_by_name([] if options.causes is None else find(options.causes)),
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
    for one in options.allow:
        parts += ["--allow", one]
    return shlex.join(parts) + " --replay '{token}'"


def _load(where: str) -> Any:
    """Import a module by its name or its file.

    :raises MisuseError: if there is none, or its own code fails.
    """
    path = Path(where).resolve()
    if where.endswith(".py") and not path.is_file():
        raise MisuseError(f"expected a file; {where!r} is none")
    try:
        if not where.endswith(".py"):
            sys.path.insert(0, str(Path.cwd()))
            return importlib.import_module(where)
        return _load_file(path)
    except (Exception, SystemExit) as exc:
        raise MisuseError(
            f"expected a module; importing {where!r} raised {Ended.by(exc).text}"
        ) from exc


def _load_file(path: Path) -> Any:
    """Import a file, by its dotted name if it is part of a package."""
    folder, name = path.parent, path.stem
    while (folder / "__init__.py").exists():
        name = f"{folder.name}.{name}"
        folder = folder.parent
    sys.path.insert(0, str(folder))
    if folder != path.parent:
        return importlib.import_module(name.removesuffix(".__init__"))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
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

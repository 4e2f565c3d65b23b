"""What the sweeps of public libraries share: uses, their results, the comparison.

A program of this directory names its uses with `use`, and ends with `main()`:
`python PROGRAM.py` sweeps them all and keeps the reports; with `--compare` it looks for
the same findings by random times and by one task; with `--check` it sweeps one seed and
says whether the kept reports still hold. `--only TEXT` chooses among the uses.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import random
import ssl
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import trio

from trio_sweep import MemoryListener, Report, memory_listener, sweep
from trio_sweep.invariants import violations
from trio_sweep.program import Program
from trio_sweep.resources import undisturbed
from trio_sweep.run import run_once
from trio_sweep.token import Token

RESULTS = Path(__file__).parent / "results"
COMPARISON = Path(__file__).parent / "comparison.json"
MOST_RUNS = 1_000  # of each searcher in a comparison
USES: list[Use] = []


@dataclass(frozen=True)
class Use:
    """One use of a package, and how it is swept."""

    package: str
    what: str
    body: object
    options: dict

    @property
    def version(self) -> str:
        """The version that is installed."""
        return importlib.metadata.version(self.package)

    def sweep(self, **options) -> Report:
        """Sweep it from outside; inner scopes are the library's own."""
        options = {"seeds": 3, "scopes": False, **self.options, **options}
        return sweep(self.body, name=self.what, **options)


def use(package: str, what: str, body, **options) -> None:
    """Name a use of a package."""
    USES.append(Use(package, what, body, options))


def main() -> None:
    """Do what the command line asks with the uses that were named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # of imports; a sweep listens by itself
    chosen = [one for one in USES if asked.only in f"{one.package} {one.what}"]
    if asked.check:
        held = [check(one) for one in chosen]  # all of them, also after one that fails
        sys.exit(not all(held))
    for one in chosen:
        (compare if asked.compare else publish)(one)


def publish(one: Use) -> None:
    """Sweep a use; print the report, and keep it as JSON."""
    report = one.sweep()
    trios = importlib.metadata.version("trio")
    print(f"== {one.package} {one.version} on trio {trios}\n{report}\n")
    kept = {
        "package": one.package,
        "version": one.version,
        "trio": trios,
        "python": sys.version.split()[0],
        **json.loads(report.to_json()),
    }
    _keep(RESULTS / f"{one.package}.json", one.what, kept)


def check(one: Use) -> bool:
    """Tell whether one seed finds what is kept; other versions are let be."""
    kept = json.loads((RESULTS / f"{one.package}.json").read_text())[one.what]
    if kept["version"] != one.version:
        print(
            f"skipped {one.package} {one.version}: the report is of {kept['version']}"
        )
        return True
    expected = {
        found["invariant"]
        for found in kept["findings"]
        if Token.parse(found["token"]).seed == 0
    }
    found = {found.invariant for found in one.sweep(seeds=1).findings}
    print(f"{one.package} {one.version} {one.what}: {sorted(found) or 'clean'}")
    if found != expected:
        print(f"    expected {sorted(expected) or 'clean'}")
    return found == expected


def _keep(file: Path, key: str, value: object) -> None:
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept[key] = value
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def compare(one: Use) -> None:
    """Note at which run each searcher first sees each invariant violated."""
    wanted = {found.invariant for found in one.sweep().findings} - {"ends"}
    if not wanted:
        return
    told = {}
    for arm in (every_boundary, random_times, one_task):
        first = told.setdefault(arm.__name__, dict.fromkeys(sorted(wanted)))
        with undisturbed(mock.Mock(is_set=lambda: False)):
            for number, invariants in enumerate(arm(one), 1):
                for name in wanted & invariants:
                    first[name] = first[name] or number
                if all(first.values()) or number >= MOST_RUNS:
                    break
    print(one.package, one.version, one.what, told)
    _keep(COMPARISON, f"{one.package} {one.version}: {one.what}", told)


def _program(one: Use) -> Program:
    known = ("world", "after", "check", "observe")
    options = {key: one.options[key] for key in known if key in one.options}
    return Program(one.body, **options)


def _judged(program: Program, seed: int, chosen):
    """Run an undisturbed program, then one run for each boundary that is chosen."""
    base = run_once(program, Token(seed))
    for k in chosen(base.seen.steps):
        run = run_once(program, Token(seed, ((k, "cancel"),)))
        yield {found.invariant for found in violations(run, program, base)}


def every_boundary(one: Use):
    """Cancel at every boundary of seed 0, then of the next one."""
    for seed in range(MOST_RUNS):
        yield from _judged(_program(one), seed, lambda steps: range(len(steps)))


def random_times(one: Use):
    """Cancel at a random time of the run, each time with a new schedule.

    In virtual time everybody waits when time passes: what a cancel meets is what the
    last step before it has left.
    """
    dice = random.Random(0)

    def at_random(steps):
        at = dice.uniform(steps[0][1], steps[-1][1])
        return [max(k for k, (_, when) in enumerate(steps) if when <= at)]

    for seed in range(MOST_RUNS):
        yield from _judged(_program(one), seed, at_random)


def one_task(one: Use):
    """Cancel where the body's own task has just begun to wait, as its caller would."""

    def own(steps):
        return [k for k, (who, _) in enumerate(steps) if who == "body"]

    for seed in range(MOST_RUNS):
        yield from _judged(_program(one), seed, own)


def holding(make, count=3):
    """Let some tasks take turns at what `make` makes; it must be free afterwards."""

    @contextlib.asynccontextmanager
    async def world():
        yield make()

    async def turn(it) -> None:
        async with it:
            await trio.sleep(1)

    async def body(it) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(turn, it)

    return {"body": body, "world": world, "after": turn}


async def echo(stream) -> None:
    """Send back what comes."""
    while data := await stream.receive_some():
        await stream.send_all(data)


def tls_pair() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return contexts for the server `x` and for a client that trusts it."""
    import trustme  # not every program needs it

    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("x").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def network(handler, *, within=None, tls=None):
    """Make a world: a server in memory that Trio and AnyIO dial, whatever the host.

    `within` makes what is opened inside of it, and is then what the world yields.
    """

    @contextlib.asynccontextmanager
    async def world():
        async with memory_listener(handler, tls=tls, connect_s=0.01) as listener:
            with listener.as_tcp(), dialled_by_anyio(listener):
                if within is None:
                    yield listener
                else:
                    async with within() as inner:
                        yield inner

    return world


@contextlib.contextmanager
def dialled_by_anyio(listener: MemoryListener):
    """Let every module that has AnyIO's `connect_tcp` dial the listener."""
    anyio = sys.modules.get("anyio")
    if anyio is None:
        yield
        return
    original = anyio.connect_tcp

    async def connect(*_, **options):
        assert not options.get("tls"), "not over TLS"
        return over_anyio(await listener.connect())

    with contextlib.ExitStack() as stack:
        for module in list(sys.modules.values()):
            if getattr(module, "__dict__", {}).get("connect_tcp") is original:
                stack.enter_context(mock.patch.object(module, "connect_tcp", connect))
        yield


def over_anyio(stream):
    """Return a stream of Trio's as AnyIO's byte stream."""
    import anyio  # not every program needs it

    @contextlib.contextmanager
    def translated():
        try:
            yield
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except trio.BrokenResourceError:
            raise anyio.BrokenResourceError from None

    class OverTrio(anyio.abc.ByteStream):
        async def receive(self, max_bytes=65_536):
            with translated():
                data = await stream.receive_some(max_bytes)
            if not data:
                raise anyio.EndOfStream
            return data

        async def send(self, item) -> None:
            with translated():
                await stream.send_all(item)

        async def send_eof(self) -> None:
            await stream.send_eof()

        async def aclose(self) -> None:
            await stream.aclose()

        @property
        def extra_attributes(self):
            raw = SimpleNamespace(setsockopt=stream.setsockopt)
            return {anyio.abc.SocketAttribute.raw_socket: lambda: raw}

    return OverTrio()

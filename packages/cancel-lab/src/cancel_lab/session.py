"""One run of the instrument: its folder with results, manifest and report."""

from __future__ import annotations

import importlib.util
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from cancel_lab import manifest, placement, records
from cancel_lab.records import Emit, Status, Writer
from cancel_lab.report.write import write_report
from cancel_lab.upstream import Upstream, simulating

RESULTS = "results.jsonl"
MANIFEST = "manifest.json"
BAD = {Status.VIOLATED, Status.DIVERGED, Status.HUNG, Status.ERROR}

T = TypeVar("T")
Experiment = Callable[[Upstream, Emit], Awaitable[None]]


class FolderTakenError(ValueError):
    """The folder holds the results of another run; two runs must not be mixed."""


class SimulatorMissingError(RuntimeError):
    """The package that has the simulator is not installed."""


def new_folder(command: str, chosen: Path | None) -> Path:
    """Return the folder for a run: the chosen one, or one named after the time."""
    folder = chosen or Path("lab-results") / time.strftime(f"{command}-%Y%m%dT%H%M%S")
    if (folder / RESULTS).exists():
        raise FolderTakenError(
            f"expected a folder without {RESULTS}, but {folder} has one: "
            "choose another with --out"
        )
    return folder


def conduct(
    folder: Path, config: Mapping[str, object], experiment: Experiment
) -> tuple[str, int]:
    """Run an experiment against a fresh simulator; return its tables and bad runs.

    Ctrl-C and SIGTERM end the run early: what there is by then is reported. After an
    error the records are kept, with their manifest.

    Errors: SimulatorMissingError, before anything is written.
    """
    if importlib.util.find_spec("trio_ai_stream") is None:
        raise SimulatorMissingError(
            "expected the package trio-ai-stream, whose simulator is the upstream of"
            " every server that is measured; it is not installed: in a checkout of it,"
            " pip install . ./packages/cancel-lab"
        )
    started = time.monotonic_ns()
    with Writer(folder / RESULTS) as writer:
        try:
            with placement.watching():
                trio.run(heeding_sigterm, partial(_run, experiment, writer.write))
        except* KeyboardInterrupt:
            pass  # what was measured until then is reported
        finally:
            content = manifest.manifest(config, started_ns=started)
            manifest.write(folder / MANIFEST, content)
    text = write_report([folder / RESULTS], folder, manifest=content)
    runs = records.read([folder / RESULTS])
    return text, sum(run.status in BAD for run in runs)


async def heeding_sigterm(program: Callable[[], Awaitable[T]]) -> T:
    """Run a program; SIGTERM ends it, and the servers it has started, as Ctrl-C does.

    Errors: KeyboardInterrupt at SIGTERM. Also where Ctrl-C is ignored, as behind nohup.
    """
    result: list[T] = []
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:

        async def wait_for_signal() -> None:
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                await anext(signals)
            nursery.cancel_scope.cancel(reason="SIGTERM")

        nursery.start_soon(wait_for_signal)
        try:
            result.append(await program())
        except Exception as exc:  # raised below: not as one of a group
            failure = exc
        nursery.cancel_scope.cancel(reason="the program is over")
    if failure is not None:
        raise failure
    if not result:
        raise KeyboardInterrupt
    return result[0]


async def _run(experiment: Experiment, emit: Emit) -> None:
    async with simulating() as upstream:
        await experiment(upstream, emit)

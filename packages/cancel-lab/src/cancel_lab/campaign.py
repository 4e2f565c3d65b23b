"""A campaign: several runs of the instrument, one after the other, from one plan.

The plan is JSON: ``within_s``, the time for all of it, and ``steps``, a name and the
words of a command line each. A step that the time does not suffice for is left out.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cancel_lab import manifest
from cancel_lab.session import MANIFEST, RESULTS

SUMMARY = "summary.csv"
PACKED = RESULTS + ".gz"
REPORT_S = 60.0  # for the report of a step that is broken off
SHORTEST_S = 10.0  # a step is not begun with less than that left


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to run, and in how many seconds."""

    within_s: float
    steps: dict[str, list[str]]


class PlanError(ValueError):
    """The file is no plan; the text says what was expected."""


def read_plan(path: Path) -> Plan:
    """Return the plan of a file. Errors: PlanError, OSError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except msgspec.DecodeError as exc:
        raise PlanError(f"{path.name}: expected a plan, got: {exc}") from exc


def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> list[str]:
    """Run the steps, each into a folder of its name; say what came of each, return it.

    What a step that is broken off has measured until then is reported.
    """
    started = time.monotonic()
    came = []
    for name, words in plan.steps.items():
        left = plan.within_s - (time.monotonic() - started)
        if left < SHORTEST_S:
            came.append(f"{name}: left out, for want of time")
            continue
        began = time.monotonic()
        status = _step(words, folder / name, left)
        came.append(f"{name}: {status}, {time.monotonic() - began:.0f} s")
        say(came[-1])
    done = {"plan": msgspec.to_builtins(plan), "came": came, **manifest.machine()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "campaign.json").write_text(json.dumps(done, indent=2) + "\n")
    return came


def ran(came: str) -> bool:
    """Tell of a line of `run` whether its step measured: status 2 is a bad usage."""
    return re.search(r": status [01], \d+ s$", came) is not None


def _step(words: list[str], folder: Path, within_s: float) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "cancel_lab", *words, "--out", str(folder)]
    with (folder / "output.txt").open("wb") as output:
        step = subprocess.Popen(argv, stdout=output, stderr=output)  # noqa: S603
        try:
            return f"status {step.wait(timeout=within_s)}"
        except subprocess.TimeoutExpired:
            _break_off(step)
        except BaseException:
            _break_off(step)
            raise
    return "broken off"


def _break_off(step: subprocess.Popen[bytes]) -> None:
    step.terminate()  # it ends its servers and reports
    try:
        step.wait(timeout=REPORT_S)
    except subprocess.TimeoutExpired:
        step.kill()
        step.wait()


def publish(folder: Path, into: Path) -> list[Path]:
    """Copy what is published of each step, records packed, and return the folders.

    Equal records give equal bytes. A step without a summary is passed over.
    """
    published = []
    for step in sorted(path.parent for path in folder.glob(f"*/{SUMMARY}")):
        target = into / step.name
        target.mkdir(parents=True, exist_ok=True)
        for name in (MANIFEST, SUMMARY):
            shutil.copyfile(step / name, target / name)
        lines = (step / RESULTS).read_bytes()
        (target / PACKED).write_bytes(gzip.compress(lines, mtime=0))
        published.append(target)
    shutil.copyfile(folder / "campaign.json", into / "campaign.json")
    return published

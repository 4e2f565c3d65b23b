"""What a sweep came to, in a file that is whole after each scenario.

So a long sweep may be read while it goes on, broken off, and continued. Each scenario
says at which commit it was swept.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from tests.sweep.excuses import EXCUSES, SWEPT
from tests.sweep.scenarios import SCENARIOS
from trio_sweep import MisuseError, Report
from trio_sweep.coverage import await_sites, classify, files_of
from trio_sweep.engine import Sweep
from trio_sweep.places import Site, short
from trio_sweep.program import SCOPE

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "docs" / "data" / "sweep"


class Row(msgspec.Struct, kw_only=True):
    """One scenario."""

    commit: str
    seeds: int
    boundaries: int
    runs: int
    with_two_acts: int
    idle: int
    hung: int
    states: int
    saturated: bool
    landed: dict[str, int]
    fates: dict[str, int]
    waived: dict[str, int]  # runs by the key of what is allowed
    findings: list[str]
    cpu_s: float

    @classmethod
    def of(cls, report: Report, commit: str, cpu_s: float) -> Row:
        """Take the numbers out of a report."""
        return cls(
            commit=commit,
            seeds=len(report.schedules),
            boundaries=sum(one.boundaries for one in report.schedules),
            runs=report.runs,
            with_two_acts=report.with_two_acts,
            idle=report.idle,
            hung=report.hung,
            states=report.states,
            saturated=report.saturated,
            landed=dict(sorted(report.landed.items())),
            fates=dict(sorted(report.fates.items())),
            waived={key: runs for key, (_, runs) in report.allowed.items()},
            findings=[f"{x.token}: {x.invariant}: {x.text}" for x in report.findings],
            cpu_s=round(cpu_s, 1),
        )


class Recorded(msgspec.Struct, kw_only=True):
    """A sweep of several scenarios, of so many that were `known`.

    `met` and `ran` are await sites, `file:line`; `coverage` counts those of each room:
    met, never waited at, missed, excused.
    """

    kind: str  # quick or full
    known: int = len(SCENARIOS)
    coverage: dict[str, tuple[int, int, int, int]] = {}
    scenarios: dict[str, Row] = {}
    met: list[str] = []
    ran: list[str] = []

    @classmethod
    def read(cls, path: Path) -> Recorded:
        """Read a file that `Recorder` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def total(self, what: str) -> int:
        """Add up a number of all scenarios."""
        return sum(getattr(row, what) for row in self.scenarios.values())

    def counts(self, what: str) -> Counter[str]:
        """Add up numbers by name; scopes count as one cause."""
        found: Counter[str] = Counter()
        for row in self.scenarios.values():
            for name, count in getattr(row, what).items():
                found[SCOPE if name.startswith(SCOPE) else name] += count
        return found


class Recorder:
    """Writes a file while a sweep goes on."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self.recorded = Recorded(kind=kind)
        self._commit = commit()
        if path.exists():
            self.recorded = Recorded.read(path)
            if self.recorded.kind != kind:
                raise MisuseError(
                    f"expected a {kind} sweep in {path}; it holds a"
                    f" {self.recorded.kind} one: take another file"
                )
        self._sites = {
            (site.path, site.line): f"{short(site.path)}:{site.line}"
            for site in await_sites(files_of(SWEPT))
        }
        self._began_s = _cpu_s()

    def add(self, name: str, sweep: Sweep) -> None:
        """Add a scenario that is over, and write everything."""
        now_s = _cpu_s()
        one = self.recorded
        one.scenarios[name] = Row.of(sweep.report, self._commit, now_s - self._began_s)
        self._began_s = now_s
        one.met = self._named(sweep.met, one.met)
        one.ran = self._named(sweep.executed, one.ran)
        one.known, one.coverage = len(SCENARIOS), self._coverage()
        document = msgspec.json.format(msgspec.json.encode(one), indent=1)
        new = self._path.with_suffix(".new")
        new.write_bytes(document + b"\n")
        new.replace(self._path)

    def _coverage(self) -> dict[str, tuple[int, int, int, int]]:
        where = {name: place for place, name in self._sites.items()}
        met, ran = ({where[x] for x in known} for known in self._known_here())
        found = {}
        for package in SWEPT:
            sites = await_sites(files_of([package]))
            of = classify(sites, met, ran, EXCUSES)
            found[package.rpartition(".")[2]] = (
                len(of.covered),
                len(of.unwaited),
                len(of.missed),
                len(of.excused),
            )
        return found

    def _known_here(self) -> Iterator[list[str]]:
        """Yield the sites met and run that the source still has."""
        here = set(self._sites.values())
        for known in self.recorded.met, self.recorded.ran:
            yield [one for one in known if one in here]

    def _named(self, sites: set[Site], known: list[str]) -> list[str]:
        return sorted({*known, *(self._sites[x] for x in sites if x in self._sites)})


def _cpu_s() -> float:
    return sum(os.times()[:4])  # of this process, and of its children that are over


def commit() -> str:
    """Return the commit that is checked out, and whether the source differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "packages", "tests")
    return git("rev-parse", "--short=7", "HEAD") + ("+changes" if changed else "")

"""What a sweep came to: for people and for machines, the same bytes every time."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from trio_sweep.coverage import Coverage
from trio_sweep.errors import ViolationsError
from trio_sweep.invariants import INVARIANTS

FATES: Final = ("delivered", "deferred", "shielded", "refused", "spared")
_SITES_SHOWN: Final = 20


@dataclass(slots=True)
class Schedule:
    """One seed: its boundaries, and how many states it met first."""

    seed: int
    boundaries: int
    fresh: int = 0


@dataclass(slots=True)
class Finding:
    """One kind of violation: its shortest token, and where the act met the body."""

    invariant: str
    text: str
    token: str
    place: str
    runs: int = 1


@dataclass(slots=True)
class Report:
    """The result of a sweep.

    `runs` counts all runs that were judged; `interrupted` says that Ctrl-C ended it, so
    that what is missing here means nothing.
    """

    name: str
    runs: int = 0
    with_two_acts: int = 0
    idle: int = 0  # acts that met nothing
    hung: int = 0
    states: int = 0
    saturated: bool = False
    interrupted: bool = False
    schedules: list[Schedule] = field(default_factory=list)
    landed: Counter[str] = field(default_factory=Counter)  # acts by cause
    fates: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    allowed: dict[str, tuple[str, int]] = field(default_factory=dict)  # reason, runs
    traces: tuple[list[str], list[str]] | None = None  # of two runs that should agree
    coverage: Coverage | None = None
    unmeasured: list[str] = field(default_factory=list)
    replay: str = "--replay {token}"  # how to run a token again

    @property
    def clean(self) -> bool:
        """Whether the sweep is complete and found nothing."""
        return not self.findings and not self.interrupted

    def raise_for_violations(self) -> None:
        """Raise if the sweep found something, or was interrupted.

        :raises ViolationsError: with the report as its text.
        """
        if not self.clean:
            raise ViolationsError(str(self))

    def __str__(self) -> str:
        parts = [
            self._totals(),
            self._findings(),
            self._traces(),
            self._allowances(),
            self._coverage(),
        ]
        return "\n\n".join(part for part in parts if part)

    def to_json(self) -> str:
        """Return everything as one JSON document; `schema` numbers its form."""
        document: dict[str, Any] = asdict(self)
        document["schema"] = 1
        document["landed"] = dict(self.landed)
        document["fates"] = {fate: self.fates[fate] for fate in FATES}
        if self.coverage is not None:
            document["coverage"] = {
                "covered": [str(one) for one in self.coverage.covered],
                "unwaited": [str(one) for one in self.coverage.unwaited],
                "missed": [str(one) for one in self.coverage.missed],
                "excused": {str(one): why for one, why in self.coverage.excused},
                "stale": self.coverage.stale,
            }
        return json.dumps(document, indent=1, sort_keys=True)

    def _totals(self) -> str:
        boundaries = sum(one.boundaries for one in self.schedules)
        seeds = len(self.schedules)
        fresh = " ".join(str(one.fresh) for one in self.schedules)
        lines = [
            f"trio-sweep of {self.name}: {boundaries} boundaries, {self.runs} runs"
            f" ({self.with_two_acts} with two acts, {self.idle} acts met nothing)",
            f"{seeds} seed{'s' if seeds != 1 else ''}, {self.states} states"
            f" (new by seed: {fresh};"
            f" {'saturated' if self.saturated else 'not saturated'})",
            "what an act did to each task: "
            + ", ".join(f"{fate} {self.fates[fate]}" for fate in FATES),
        ]
        if self.interrupted:
            lines.append(
                f"INTERRUPTED after {self.runs} runs: what was not reached is not known"
            )
        if self.unmeasured:
            lines.append("not measured here: " + ", ".join(self.unmeasured))
        return "\n".join(lines)

    def _findings(self) -> str:
        if not self.findings:
            return "" if self.interrupted else "no invariant was violated"
        lines = []
        for one in self.findings:
            runs = f"{one.runs} run{'s' if one.runs != 1 else ''}"
            lines += [f"VIOLATED {one.invariant} ({runs}): {one.text}"]
            lines += [f"    the rule: {INVARIANTS[one.invariant]}"]
            if one.place:
                lines += [f"    the act met {one.place}"]
            again = self.replay.replace("{token}", one.token)
            lines += [f"    once more: {again}"]
        return "\n".join(lines)

    def _traces(self) -> str:
        if self.traces is None:
            return ""
        first, second = self.traces
        rows = zip(first, second, strict=False)
        differ = next((n for n, (a, b) in enumerate(rows) if a != b), None)
        at = min(len(first), len(second)) if differ is None else differ
        lines = [f"two runs of one token differ at boundary {at}:"]
        for title, trace in (("one", first), ("other", second)):
            shown = trace[max(0, at - 3) : at + 3]
            lines.append(f"  {title} ({len(trace)}): … " + ", ".join(shown) + " …")
        return "\n".join(lines)

    def _allowances(self) -> str:
        return "\n".join(
            f"allowed {key} ({runs} runs): {reason}"
            for key, (reason, runs) in self.allowed.items()
        )

    def _coverage(self) -> str:
        coverage = self.coverage
        if coverage is None:
            return ""
        reachable = len(coverage.covered) + len(coverage.missed)
        lines = [
            f"await sites: an act landed at {len(coverage.covered)} of {reachable};"
            f" at {len(coverage.unwaited)} more nobody ever waited,"
            f" {len(coverage.excused)} are excused"
        ]
        lines += [f"  missed: {one}" for one in coverage.missed[:_SITES_SHOWN]]
        if (more := len(coverage.missed) - _SITES_SHOWN) > 0:
            lines.append(f"  and {more} more")
        reasons = Counter((one.name, why) for one, why in coverage.excused)
        lines += [
            f"  excused: {name} ({count}): {why}"
            for (name, why), count in sorted(reasons.items())
        ]
        return "\n".join(lines)

"""The summary: one row per cell and measured time, derived from the records alone.

Rows are in a fixed order and the bootstrap is seeded by the cell's own name, so the
same records give the same bytes on any machine.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

from cancel_lab.records import RunRecord, Status
from cancel_lab.statistics import Interval, Latency, Summary, bootstrap, summarize

KEY = ("tier", "experiment", "server", "cause", "phase", "transport", "policy",
       "variant")  # fmt: skip
FIGURES = (
    *("time", "n", "censored", "p50_ms", "p50_low_ms", "p50_high_ms"),
    *("p90_ms", "p99_ms", "max_ms"),
)
COLUMNS = (
    *(*KEY, "runs"),
    *(status.value for status in Status),
    *FIGURES,
    *("wasted_tokens_max", "outcomes", "endings", "leaks", "reason"),
)
TIMES = (
    "t_up",
    "t_log",
    "t_client_end",
    "t_process_exit",
    "t_first_token",
    "t_work_end",
)
NS_PER_MS = 1e6


class Cell:
    """All runs with equal factors, in the order in which they were made."""

    def __init__(self, key: tuple[str, ...], runs: Sequence[RunRecord]) -> None:
        """Take the factors, in the order of ``KEY``, and the runs that have them."""
        self.key = key
        self.runs = runs
        self._summaries: dict[str, Summary] = {}

    @property
    def transport(self) -> str:
        """The transport, and what else was not plain."""
        transport, _, variant = self.key[5:]
        return f"{transport}, {variant}" if variant else transport

    def latencies(self, time: str) -> list[Latency]:
        """Return the latencies of one time in milliseconds, censored ones included."""
        if self.runs[0].samples:
            return self._sampled(time)
        found = (run.latency(time) for run in self.runs)
        return [(ns / NS_PER_MS, seen) for ns, seen in filter(None, found)]

    def _sampled(self, time: str) -> list[Latency]:
        latencies: list[Latency] = []
        for run in self.runs:
            bound = run.latency("t_up")
            values = run.samples.get(time, [])
            latencies += [(ns / NS_PER_MS, True) for ns in values]
            unseen = run.counts.get("unseen", 0) if time in run.samples else 0
            if unseen and bound is not None:
                latencies += [(bound[0] / NS_PER_MS, False)] * unseen
        return latencies

    def wasted(self) -> list[int]:
        """Return how many tokens upstream still sent, of each run that tells."""
        tokens = [run.tokens for run in self.runs]
        return [counts["wasted"] for counts in tokens if "wasted" in counts]

    def summary(self, time: str) -> Summary:
        """Return the statistics of one time; worked out once."""
        if time not in self._summaries:
            seed = self._seed(time)
            self._summaries[time] = summarize(self.latencies(time), seed=seed)
        return self._summaries[time]

    def median_interval(self, time: str, level: float) -> Interval:
        """Return the bootstrap interval of the median at a level of confidence."""
        return bootstrap(self.latencies(time), 0.5, seed=self._seed(time), level=level)

    def _seed(self, time: str) -> int:
        return zlib.crc32("/".join((*self.key, time)).encode())


def cell_key(run: RunRecord) -> tuple[str, ...]:
    """Return the factors of a run, in the order of ``KEY``."""
    phase = run.phase
    if "streams" in run.counts:
        phase = f"{phase} x{run.counts['streams']}"
    return (
        *(run.tier, run.experiment, run.sut.name),
        *(run.cause, phase, run.transport, run.policy, run.variant),
    )


def cells(runs: Iterable[RunRecord]) -> list[Cell]:
    """Group runs by their factors; cells come in the order of their first run."""
    grouped: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in runs:
        grouped.setdefault(cell_key(run), []).append(run)
    return [Cell(key, members) for key, members in grouped.items()]


def number(value: float | None) -> str:
    """Return a figure for a table; an unknown one is empty."""
    return "" if value is None else f"{value:.3f}"


def tally(values: Iterable[str | None]) -> str:
    """Return ``value=count`` pairs of the values there are, frequent ones first."""
    counts = Counter(value for value in values if value is not None)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return "; ".join(f"{value}={count}" for value, count in ordered)


def _worst_leaks(runs: Sequence[RunRecord]) -> str:
    worst: dict[str, int] = {}
    for run in runs:
        for name, count in run.leaks.items():
            worst[name] = max(count, worst.get(name, count))
    return "; ".join(f"{name}={count}" for name, count in sorted(worst.items()))


def rows(cell: Cell) -> list[dict[str, str]]:
    """Return a cell's rows: one per measured time, or one without figures."""
    statuses = Counter(run.status for run in cell.runs)
    wasted = [run.tokens["wasted"] for run in cell.runs if "wasted" in run.tokens]
    common = dict(zip(KEY, cell.key, strict=True))
    common |= {status.value: str(statuses[status]) for status in Status}
    common |= {
        "runs": str(len(cell.runs)),
        "wasted_tokens_max": str(max(wasted)) if wasted else "",
        "outcomes": tally(run.cause_recorded for run in cell.runs),
        "endings": tally(run.terminal for run in cell.runs),
        "leaks": _worst_leaks(cell.runs),
        "reason": tally(run.reason for run in cell.runs),
    }
    measured = [name for name in TIMES if cell.latencies(name)]
    return [common | _figures(cell, name) for name in measured or [""]]


def _figures(cell: Cell, name: str) -> dict[str, str]:
    if not name:
        return dict.fromkeys(FIGURES, "")
    summary = cell.summary(name)
    return {
        "time": name,
        "n": str(summary.n),
        "censored": str(summary.censored),
        "p50_ms": number(summary.p50),
        "p50_low_ms": number(summary.p50_interval.low),
        "p50_high_ms": number(summary.p50_interval.high),
        "p90_ms": number(summary.p90),
        "p99_ms": number(summary.p99),
        "max_ms": number(summary.maximum),
    }


def summary_csv(runs: Iterable[RunRecord]) -> bytes:
    """Return ``summary.csv`` of the records."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for cell in cells(runs):
        writer.writerows(rows(cell))
    return text.getvalue().encode()

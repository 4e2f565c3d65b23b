"""Tables whose rows are runs, or a few repeats of one: bursts and stalled readers."""

from __future__ import annotations

from collections.abc import Sequence

from cancel_lab.records import RunRecord
from cancel_lab.report.summary import cells
from cancel_lab.report.table import Table, milliseconds
from cancel_lab.statistics import MINIMUM_N_FOR_P99

NS_PER_MS = 1e6
NS_PER_S = 1e9
BYTES_PER_MB = 1e6


def burst_table(runs: Sequence[RunRecord]) -> list[Table]:
    """Return how long after the first close upstream had noticed the last one."""
    found = [cell for cell in cells(runs) if "streams" in cell.runs[0].counts]
    if not found:
        return []
    found.sort(key=lambda cell: (cell.runs[0].counts["streams"], cell.key[2]))
    body = []
    for cell in found:
        lasts = [run.latency("t_up") for run in cell.runs]
        seen = sorted(
            ns / NS_PER_MS for ns, observed in filter(None, lasts) if observed
        )
        summary = cell.summary("t_up")
        withheld = "n < 100" if summary.n < MINIMUM_N_FOR_P99 else "not seen"
        body.append(
            (
                str(cell.runs[0].counts["streams"]),
                cell.key[2],
                str(len(cell.runs)),
                *(milliseconds(x) for x in (summary.p50, summary.p90)),
                milliseconds(summary.p99, unseen=withheld),
                " ".join(milliseconds(value) for value in seen) or "not seen",
                str(sum(run.counts.get("unseen", 0) for run in cell.runs)),
            )
        )
    head = ("streams", "server", "bursts", "p50 ms", "p90", "p99",
            "last after first close, ms", "unseen")  # fmt: skip
    return [("burst: all clients close at once, each stream's notice", [head, *body])]


def stalled_table(runs: Sequence[RunRecord]) -> list[Table]:
    """Return what a client that does not read costs each server, and for how long."""
    found = [run for run in runs if run.experiment == "stalled" and run.series]
    if not found:
        return []
    body = []
    for run in found:
        latency = run.latency("t_up")
        assert latency is not None
        ns, seen = latency
        body.append(
            (
                run.sut.name,
                run.transport,
                f"{ns / NS_PER_S:.1f}" if seen else f"not in {ns / NS_PER_S:.0f}",
                *_figures(run.series.get("pulled_bytes", [])),
                *_figures(run.series.get("rss_bytes", []), growth=True),
                run.reason or "",
            )
        )
    head = ("server", "transport", "ended by the server after s", "pulled MB",
            "last second MB", "RSS growth MB", "last second MB", "")  # fmt: skip
    return [("stalled: a client stops reading a flood", [head, *body])]


def _figures(
    points: Sequence[tuple[int, float]], *, growth: bool = False
) -> tuple[str, str]:
    """Return the last value, and by how much it grew in the last second."""
    if not points:
        return "", ""
    last_ns, last = points[-1]
    before = [value for ns, value in points if ns <= last_ns - NS_PER_S]
    recent = last - (before[-1] if before else points[0][1])
    total = last - points[0][1] if growth else last
    return f"{total / BYTES_PER_MB:.1f}", f"{recent / BYTES_PER_MB:.1f}"

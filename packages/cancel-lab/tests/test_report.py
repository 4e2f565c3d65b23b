"""The report: derived from the records alone, and the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from cancel_lab import records, timeline
from cancel_lab.records import RunRecord, Status, Sut
from cancel_lab.report.perfetto import chrome_trace, trace_of
from cancel_lab.report.summary import summary_csv
from cancel_lab.report.table import latency_tables, notice_verdicts
from cancel_lab.report.write import write_report
from cancel_lab.timeline import Arrow, Kind, Lane, Mark, Span, Trace

MS = 1_000_000


def run(server: str, number: int, up_ms: float | None) -> RunRecord:
    """Return one run whose upstream noticed after so long, or never in 5 s."""
    cause = 1_000 * MS
    seen = None if up_ms is None else cause + int(up_ms * MS)
    return RunRecord(
        run_id=f"{server}-{number}",
        tier="probe",
        experiment="notice",
        sut=Sut(name=server),
        cause="client_fin",
        phase="headers",
        transport="h1",
        status=Status.CENSORED if up_ms is None else Status.PASS,
        times={"t_cause": cause, "t_up": seen},
        watched_until_ns=cause + 5_000 * MS,
        tokens={"wasted": number % 2},
    )


def special(experiment: str, **fields: object) -> RunRecord:
    """Return a run of another experiment."""
    base: dict[str, object] = {
        "run_id": experiment, "tier": "matrix", "experiment": experiment,
        "sut": Sut(name="ours"), "cause": "client_fin", "phase": "stream",
        "transport": "h2c", "status": Status.PASS,
        "times": {"t_cause": 0, "t_up": 5 * MS}, "watched_until_ns": 9 * MS,
    }  # fmt: skip
    return RunRecord(**(base | fields))  # type: ignore[arg-type]


FIXTURE = [
    *(run("quick", n, 0.5 + n / 10) for n in range(30)),
    *(run("alike", n, 0.5 + n / 10) for n in range(30)),
    *(run("late", n, None if n % 3 == 0 else 2_000 + n) for n in range(30)),
    special("matrix", cause_recorded="client_disconnected"),
    special("matrix", status=Status.VIOLATED, violations=["I1 too late"]),
    special(
        "matrix", phase="permit_wait", status=Status.SKIPPED, times={}, reason="no wait"
    ),
    special("burst", counts={"streams": 2}, samples={"t_up": [MS, 3 * MS]}),
    special(
        "burst", counts={"streams": 20, "unseen": 1}, samples={"t_up": [2 * MS] * 19},
        times={"t_cause": 0, "t_up": None},
    ),
    special(
        "stalled",
        series={
            "pulled_bytes": [(0, 1e6), (2_000 * MS, 3e6)],
            "rss_bytes": [(0, 5e7), (2_000 * MS, 6e7)],
        },
    ),
]  # fmt: skip


TRACE = Trace(
    title="one cancel",
    lanes=[
        Lane(
            name="relay",
            process="server",
            spans=[
                Span(kind=Kind.LIFE, start_ns=0, end_ns=9 * MS),
                Span(kind=Kind.SHIELDED, start_ns=5 * MS, end_ns=6 * MS, label="bye"),
                Span(kind=Kind.TOKEN, start_ns=MS, end_ns=MS),
            ],
        ),
        Lane(name="socket", process="upstream"),
    ],
    marks=[Mark(name="t_cause", at_ns=5 * MS)],
    arrows=[
        Arrow(
            name="fin",
            from_lane="relay",
            from_ns=5 * MS,
            to_lane="socket",
            to_ns=6 * MS,
        )
    ],
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results file with every kind of record."""
    path = tmp_path_factory.mktemp("results") / "results.jsonl"
    with records.Writer(path) as writer:
        for record in FIXTURE:
            writer.write(record)
    timeline.write(path.with_name("trace.json"), TRACE)
    return path


@pytest.fixture(scope="module")
def report(results: Path) -> tuple[Path, str]:
    """Return the folder of a report with a trace, and its printed tables."""
    out = results.parent / "report"
    traces = [results.with_name("trace.json")]
    text = write_report([results], out, traces=traces, manifest={"seeds": [4, 2]})
    return out, text


def test_a_report_reproduces_byte_for_byte(
    results: Path, report: tuple[Path, str], tmp_path: Path
) -> None:
    """From the records alone come the same summary.csv and the same plots again."""
    out, text = report
    assert (out / "summary.csv").read_bytes() == summary_csv(FIXTURE)
    assert text == write_report([results], tmp_path)
    assert (out / "summary.csv").read_bytes() == (tmp_path / "summary.csv").read_bytes()
    for plot in tmp_path.glob("*.svg"):
        assert plot.read_bytes() == (out / plot.name).read_bytes()


def test_the_summary_says_what_was_not_seen() -> None:
    """Ten of thirty never noticed: counted as censored, and no maximum is given."""
    lines = summary_csv(FIXTURE).decode().splitlines()
    header = lines[0].split(",")
    (late,) = [line for line in lines if ",late," in line]
    row = dict(zip(header, late.split(","), strict=True))
    assert (row["n"], row["censored"], row["max_ms"]) == ("30", "10", "")
    assert float(row["p50_ms"]) > 2_000
    assert row["p99_ms"] == ""


def test_the_tables_call_a_tie_a_tie(report: tuple[Path, str]) -> None:
    """Equal servers tie; one a thousand times slower does not."""
    lines = report[1].splitlines()
    assert any(x.startswith("alike") and "tie with the lowest" in x for x in lines)
    assert any(x.startswith("late") and "tie" not in x for x in lines)
    assert "I1 too late=1" in report[1]
    assert "no wait=1" in report[1]


def test_the_page_stands_alone(report: tuple[Path, str]) -> None:
    """Plots are inline; nothing is fetched from anywhere; the manifest is in it."""
    out, _ = report
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 5
    assert "<script" not in page
    assert "<img" not in page
    assert 'href="http' not in page
    assert "seeds" in page
    assert "one cancel" in page
    for name in ("notice", "matrix", "burst", "stalled", "timeline-1"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "timeline-1.trace.json").read_text())["traceEvents"]


def test_a_chrome_trace_has_processes_slices_and_flows() -> None:
    """Each lane is a named thread of its process; cause and effect are one flow."""
    events = json.loads(chrome_trace(TRACE))["traceEvents"]
    names = {e["args"]["name"]: e["pid"] for e in events if e["ph"] == "M"}
    assert names["server"] != names["upstream"]
    shield = next(e for e in events if e["name"] == "bye")
    assert (shield["ph"], shield["ts"], shield["dur"]) == ("X", 5_000, 1_000)
    flow = [e for e in events if e["ph"] in "sf"]
    assert [e["ph"] for e in flow] == ["s", "f"]
    assert flow[0]["id"] == flow[1]["id"]


def test_a_record_has_an_outside_trace() -> None:
    """Client and upstream are its parties, and the notice follows from the cause."""
    trace = trace_of(run("quick", 1, 0.5))
    assert [lane.process for lane in trace.lanes] == ["client", "upstream"]
    assert trace.arrows[0].to_ns - trace.arrows[0].from_ns == MS // 2


def claims(*runs: RunRecord) -> dict[str, str]:
    """Return what the table of one cell says of each server."""
    _, rows = latency_tables(runs)[0]
    return {row[0]: row[-1] for row in rows[1:]}


def test_a_few_runs_claim_nothing() -> None:
    """Nineteen runs are no winner, however far apart the servers are."""
    few = [run("a", n, 1 + n / 100) for n in range(19)]
    many = [run("b", n, 100 + n) for n in range(19)]
    assert set(claims(*few, *many).values()) == {"no claim: n < 20"}


def test_an_interval_without_width_claims_nothing() -> None:
    """Equal times are a clock that is too coarse, or a mistake; not certainty."""
    same = [run("a", n, 1.0) for n in range(20)]
    other = [run("b", n, 50 + n) for n in range(20)]
    assert claims(*same, *other)["a"] == "no claim: an interval without width"


def test_more_servers_need_more_distance() -> None:
    """What is a winner of two is a tie among many: the intervals widen."""
    best = [run("a", n, 1 + n / 100) for n in range(20)]
    near = [run("b", n, 1.11 + n / 100) for n in range(20)]
    assert claims(*best, *near) == {"a": "lowest median", "b": ""}
    others = [run(f"s{i}", n, 90 + n) for i in range(30) for n in range(20)]
    said = claims(*best, *near, *others)
    assert said["a"] == "lowest median, with ties"
    assert said["b"] == "tie with the lowest"
    assert said["s0"] == ""


def test_nobody_wins_a_shutdown() -> None:
    """A server that cuts its streams exits soonest; that is no merit."""
    runs = [
        msgspec.structs.replace(one, experiment="shutdown")
        for name, base in (("a", 1), ("b", 90))
        for one in (run(name, n, base + n / 10) for n in range(20))
    ]
    assert set(claims(*runs).values()) == {""}


def test_a_late_notice_is_no_stop() -> None:
    """The bound decides: what is noticed after it, or never, has not stopped."""
    in_time = [run("a", n, 1 + n / 100) for n in range(20)]
    late = [run("b", n, 1_900) for n in range(20)]
    never = [run("c", n, None) for n in range(20)]
    few = [run("d", n, 1) for n in range(19)]
    ((_, rows),) = notice_verdicts([*in_time, *late, *never, *few])
    assert {row[0]: row[-1] for row in rows[1:]} == {
        "a": "stops",
        "b": "does not stop: 20 of 20",
        "c": "does not stop: 20 of 20",
        "d": "no claim: n < 20",
    }
    wider = [msgspec.structs.replace(one, within_ns=2_000 * MS) for one in late]
    ((_, rows),) = notice_verdicts(wider)
    assert rows[1][-1] == "stops"

"""The run record: what is written comes back, and unobserved never turns into zero."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancel_lab import records
from cancel_lab.records import RunRecord, Status, Sut


def record(**changes: object) -> RunRecord:
    """Return a record with some fields changed."""
    fields: dict[str, object] = {
        "run_id": "r1",
        "tier": "probe",
        "sut": Sut(name="naive"),
        "cause": "client_fin",
        "phase": "stream",
        "transport": "h1",
        "status": Status.PASS,
    }
    return RunRecord(**(fields | changes))  # type: ignore[arg-type]


@given(
    st.dictionaries(st.text(max_size=9), st.none() | st.integers(0, 2**60), max_size=4)
)
def test_a_record_survives_a_round_trip(times: dict[str, int | None]) -> None:
    """What was encoded decodes to an equal record, unobserved times included."""
    original = record(times=times, series={"rss": [(0, 1.5), (7, 2.0)]})
    assert records.decode(records.encode(original)) == original


def test_every_line_names_its_schema_version() -> None:
    """A reader can tell the version before it trusts any other field."""
    with_default = records.encode(record())
    assert b'"schema_version":1' in with_default


def test_a_record_of_another_version_is_refused() -> None:
    """The error says which version was expected and which came."""
    with pytest.raises(records.RecordError, match="version 1, got 2"):
        records.decode(b'{"schema_version":2}')


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    """The reader says which line of which file it could not read."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(records.encode(record()) + b"\nnot json\n")
    with pytest.raises(records.RecordError, match=r"results\.jsonl, line 3"):
        list(records.read([path]))


def test_the_writer_appends(tmp_path: Path) -> None:
    """A second run into the same file extends it."""
    path = tmp_path / "deep" / "results.jsonl"
    for run_id in ("a", "b"):
        with records.Writer(path) as writer:
            writer.write(record(run_id=run_id))
    assert [r.run_id for r in records.read([path])] == ["a", "b"]


def test_a_packed_file_reads_the_same(tmp_path: Path) -> None:
    """Results are kept packed beside the documentation."""
    path = tmp_path / "results.jsonl.gz"
    path.write_bytes(gzip.compress(records.encode(record()), mtime=0))
    assert list(records.read([path])) == [record()]


def test_a_latency_is_seen_censored_or_absent() -> None:
    """A watched but unseen time is a bound; an unwatched one is nothing at all."""
    times = {"t_cause": 100, "t_up": 130, "t_exit": None}
    watched = record(times=times, watched_until_ns=1100)
    assert watched.latency("t_up") == (30, True)
    assert watched.latency("t_exit") == (1000, False)
    assert watched.latency("t_log") is None
    assert record(times=times).latency("t_exit") is None
    assert record(times={"t_up": 5}).latency("t_up") is None

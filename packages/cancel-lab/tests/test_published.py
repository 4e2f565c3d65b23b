"""The published results: every summary in docs/ follows from the records beside it."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from cancel_lab import records
from cancel_lab.report.summary import summary_csv

DATA = Path(__file__).parents[3] / "docs" / "data" / "cancellation"
RESULTS = sorted(DATA.glob("*/results.jsonl.gz"))


@pytest.mark.parametrize("results", RESULTS, ids=lambda path: path.parent.name)
def test_a_published_summary_reproduces_byte_for_byte(results: Path) -> None:
    """Nobody edited a figure, and the analysis still gives what was published."""
    published = results.with_name("summary.csv").read_bytes()
    assert summary_csv(records.read([results])) == published


def test_there_are_published_results() -> None:
    """The test above does not pass for want of files; manifests are with them."""
    assert RESULTS
    for results in RESULTS:
        assert results.with_name("manifest.json").exists()
    size = sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file())
    assert size < 900_000, "results data stay small"


# Where people and programs keep things; what follows is somebody's own.
FOLDERS = re.compile(rb"(?<![\w.-])/(?:home|root|tmp|work|Users|opt|var|etc)/")


def test_nothing_published_names_a_folder_of_a_machine() -> None:
    """Neither a manifest nor a record, nor what was made of them."""
    for path in DATA.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            text = gzip.decompress(data) if path.suffix == ".gz" else data
            assert not FOLDERS.search(text), path.name

"""Each benchmark runs, at sizes too small to measure anything; no time is asserted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bench.__main__ import main, parser
from bench.figures import Figure, ratio_text, table, write_json
from bench.load import Load
from bench.plots import draw, series
from bench.processes import gateway, upstream
from bench.rows import ROWS
from bench.rows.row import Rounds, quantile

TINY = {
    "relay": ["--rounds", "1", "--streams", "2", "--events", "40"],
    "dialects": ["--rounds", "1", "--streams", "2", "--events", "40", "--paced", "2",
                 "--seconds", "0.2"],
    "first": ["--rounds", "1", "--streams", "2"],
    "paced": ["--streams", "3", "--events", "30", "--period-ms", "20"],
    "idle": ["--rounds", "1", "--streams", "3", "--warm-up", "1"],
    "many": ["--few", "2", "--many", "4", "--probes", "10"],
    "pauses": ["--streams", "3", "--beside", "2", "--newcomers", "2",
               "--period-ms", "20", "--seconds", "0.3"],
    "sparse": ["--rounds", "1", "--many", "3", "--few", "2", "--seconds", "0.2",
               "--requests", "2"],
    "workers": ["--rounds", "1", "--streams", "2", "--seconds", "0.3"],
    "fairness": ["--rounds", "1", "--firehoses", "1", "--newcomers", "2",
                 "--settle-s", "0.1"],
    "streams": ["--most", "1", "--events", "30", "--period-ms", "20",
                "--burst-events", "40"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _any_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the test process on the cores it has."""
    monkeypatch.setattr("os.sched_setaffinity", lambda _pid, _cores: None)


def test_every_row_has_tiny_sizes() -> None:
    """No row is left out of the test below."""
    assert set(TINY) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_measures_both_servers(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes start, streams end, and every figure has a finite value of ours."""
    path = tmp_path / "figures.json"
    words = [name, *TINY[name], "--json", str(path)]
    if name == "streams":
        words += ["--plots", str(tmp_path)]
    assert main(words) == 0
    figures = json.loads(path.read_text())["figures"]
    assert figures
    for figure in figures:
        assert all(map(math.isfinite, figure["values"]["ours"])), figure["name"]
    assert "| goal |" in capsys.readouterr().out


def test_all_streams_of_a_load_end_and_are_counted() -> None:
    """The load reads what upstream and both servers say, event by event."""
    with upstream() as source, gateway("ours", source) as (_, ours):
        for target in (source, ours):
            for model in ("bench/25/0", "bench/3/10"):
                with Load(target) as load:
                    load.begin(2, model)
                    load.read_to_end(at_most_s=20)
                    assert load.finished == 2
                    assert load.events == 2 * int(model.split("/")[1])


def test_rounds_alternate() -> None:
    """A B, B A: whoever is first has no advantage."""
    assert list(Rounds(2).turns()) == ["ours", "naive", "naive", "ours"]


def test_figures_say_median_range_and_ratio(tmp_path: Path) -> None:
    """The table has the median and the range, and the ratio of each round's pair."""
    figure = Figure("work: cost", "us", "small", digits=0)
    for ours, naive in ((1, 10), (2, 40), (3, 90)):
        figure.add("ours", ours)
        figure.add("naive", naive)
    assert ratio_text(figure) == "1/20.0"
    assert "| work | cost, us | 2 (1-3) | 40 (10-90) |  | 1/20.0 |" in table([figure])
    write_json([figure], tmp_path / "figures.json")
    assert quantile([1, 2, 3], 0.5) == 2


def test_plots_take_each_level(tmp_path: Path) -> None:
    """A quantity that was measured at several levels becomes a line."""
    quantities = ("events/s", "event delay p50", "event delay p99", "CPU")
    figures = [Figure(f"{n} streams: {q}", "") for n in (1, 10) for q in quantities]
    for figure in figures:
        figure.add("ours", 5)
        figure.add("naive", 6)
    assert series(figures, "CPU", "ours") == ([1, 10], [5, 5])
    assert [path.suffix for path in draw(figures, tmp_path)] == [".svg"] * 3


def test_sizes_are_options() -> None:
    """The fields of a row are its subcommand's options."""
    assert parser().parse_args(["relay", "--streams", "7"]).streams == 7

"""Each benchmark runs, at sizes too small to measure anything; no time is asserted."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main, parser, write_results
from bench.figures import Figure, ratio_text, table, write_json
from bench.load import Load, Target
from bench.plots import draw_pauses, series
from bench.processes import Process, gateway, upstream
from bench.rows import ROWS
from bench.rows.row import Rounds, quantile

TINY = {
    "relay": ["--rounds", "1", "--streams", "2", "--events", "40"],
    "dialects": ["--rounds", "1", "--streams", "2", "--events", "40", "--paced", "2",
                 "--each", "6"],
    "first": ["--rounds", "1", "--streams", "2"],
    "paced": ["--streams", "3", "--events", "30", "--period-ms", "20"],
    "idle": ["--rounds", "1", "--streams", "3", "--warm-up", "1",
             "--heartbeat-s", "0.3"],
    "many": ["--few", "2", "--many", "4", "--probes", "10"],
    "pauses": ["--streams", "3", "--beside", "2", "--newcomers", "2",
               "--period-ms", "20", "--seconds", "0.3", "--within-s", "0.1",
               "--settle-s", "0.1", "--level-seconds", "0.1"],
    "sparse": ["--rounds", "1", "--many", "3", "--few", "2", "--seconds", "0.2",
               "--requests", "2", "--settle-s", "0.1"],
    "tls": ["--rounds", "1", "--streams", "2", "--idle", "8", "--warm-up", "1"],
    "workers": ["--rounds", "1", "--streams", "2", "--seconds", "0.3"],
    "fairness": ["--rounds", "1", "--firehoses", "1", "--newcomers", "2",
                 "--settle-s", "0.1"],
    "streams": ["--most", "1", "--events", "30", "--period-ms", "20",
                "--burst-events", "40"],
    "pythons": ["--rounds", "1", "--requests", "2", "--idle", "3"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _any_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the test process on the cores it has."""
    monkeypatch.setattr("os.sched_setaffinity", lambda _pid, _cores: None)


class Shared:
    """One upstream, and one gateway of each kind: starts are most of a tiny row."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._source: Target | None = None
        self._gateways: dict[str, tuple[Process, Target]] = {}

    @contextlib.contextmanager
    def upstream(self) -> Iterator[Target]:
        """As `bench.processes` has it, but for the end."""
        self._source = self._source or self._stack.enter_context(upstream())
        yield self._source

    @contextlib.contextmanager
    def gateway(
        self, name: str, source: Target, **options: Any
    ) -> Iterator[tuple[Process, Target]]:
        """As `bench.processes` has it, but for the end."""
        kind = f"{name} {options}"
        if kind not in self._gateways:
            running = self._stack.enter_context(gateway(name, source, **options))
            self._gateways[kind] = running
        yield self._gateways[kind]


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    """What all rows share; it ends after the last."""
    with contextlib.ExitStack() as stack:
        yield Shared(stack)


def test_every_row_has_tiny_sizes() -> None:
    """No row is left out of the test below."""
    assert set(TINY) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_measures_both_servers(
    name: str,
    shared: Shared,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Streams begin and end, and every figure has a finite value of ours."""
    if name != "tls":  # weighs processes that are new
        monkeypatch.setattr(f"bench.rows.{name}.upstream", shared.upstream)
        monkeypatch.setattr(f"bench.rows.{name}.gateway", shared.gateway)
    path = tmp_path / "figures.json"
    words = [name, *TINY[name], "--json", str(path)]
    if name == "streams":
        words += ["--plots", str(tmp_path)]
    assert main(words) == 0
    figures = json.loads(path.read_text())["figures"]
    assert figures
    for figure in figures:
        assert all(map(math.isfinite, figure["values"]["ours"])), figure["name"]
    printed = capsys.readouterr().out
    assert "| goal |" in printed
    assert printed.count(".svg") == (3 if name == "streams" else 0)


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


def test_plots_take_each_level() -> None:
    """A quantity that was measured at several levels becomes a line."""
    figures = [
        Figure(f"{n} streams: {q}", "") for n in (1, 10) for q in ("rate", "CPU")
    ]
    for figure in figures:
        figure.add("ours", 5)
        figure.add("naive", 6)
    assert series(figures, "CPU", "ours") == ([1, 10], [5, 5])


def test_a_run_of_all_becomes_the_documents_table(tmp_path: Path) -> None:
    """Between its marks, again and again; and the plot of pauses stands beside it."""
    document = tmp_path / "performance.md"
    document.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    for text in ("first", "second"):
        write_results(document, text)
    marked = "<!-- results -->\n\nsecond\n\n<!-- /results -->"
    assert document.read_text() == f"before\n{marked}\nafter\n"
    figure = Figure("10 streams: worst event delay", "ms")
    figure.add("ours", 5)
    figure.add("aiohttp", 6)
    assert draw_pauses([figure], tmp_path).stat().st_size > 1000


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    """It is refused before a word of it is lost."""
    document = tmp_path / "other.md"
    document.write_text("as it was")
    with pytest.raises(ValueError, match="expected <!-- results -->"):
        write_results(document, "new")
    assert document.read_text() == "as it was"


def test_sizes_are_options() -> None:
    """The fields of a row are its subcommand's options."""
    assert parser().parse_args(["relay", "--streams", "7"]).streams == 7

"""A run that is told to end ends its servers, and keeps what it has measured."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from cancel_lab.__main__ import main
from cancel_lab.procfs import family
from cancel_lab.session import heeding_sigterm

WORDS = (
    *("--adapter", "naive-quart-trio", "--n", "1000", "--experiment", "notice"),
    *("--phase", "stream"),
)


async def until(right: Callable[[], bool]) -> None:
    """Look until it is so: another process does it."""
    while not right():  # noqa: ASYNC110
        await trio.sleep(0.02)


def alive(pids: list[int]) -> list[int]:
    """Those that run, and are not only waited for."""
    found = []
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] != "Z":
            found.append(pid)
    return found


def start(words: list[str], at_sigint: object) -> subprocess.Popen[bytes]:
    """Start the instrument; what it does at Ctrl-C is inherited, if that is nothing."""
    before = signal.signal(signal.SIGINT, at_sigint)  # type: ignore[arg-type]
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "cancel_lab", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("ignored", [False, True], ids=["", "behind nohup"])
@pytest.mark.parametrize("whole", [False, True], ids=["probe", "campaign"])
async def test_sigterm_ends_the_servers_as_well(
    tmp_path: Path, whole: bool, ignored: bool
) -> None:
    """What was measured until then is reported, also where Ctrl-C is ignored."""
    words = ["probe", *WORDS, "--out", str(tmp_path / "one")]
    if whole:
        plan = tmp_path / "plan.json"
        steps = {"one": ["probe", *WORDS]}
        plan.write_text(json.dumps({"within_s": 300, "steps": steps}))
        words = ["campaign", str(plan), "--out", str(tmp_path)]
    results = tmp_path / "one" / "results.jsonl"
    lab = start(words, signal.SIG_IGN if ignored else signal.default_int_handler)
    with trio.fail_after(60):
        await until(lambda: results.exists() and results.stat().st_size > 0)
        pids = family(lab.pid)
        assert len(pids) >= 3 + whole  # itself, the simulator, the server
        lab.send_signal(signal.SIGTERM)
        await until(lambda: lab.poll() is not None)
    assert alive(pids) == []
    assert (tmp_path / "one" / "report.html").exists()


async def _fail() -> None:
    raise OSError("no such port")


async def _succeed() -> int:
    return 3


def test_a_program_s_end_and_its_failure_come_through_as_they_are() -> None:
    """No group is around them."""
    assert trio.run(heeding_sigterm, _succeed) == 3
    program: Callable[[], Awaitable[None]] = _fail
    with pytest.raises(OSError, match="no such port"):
        trio.run(heeding_sigterm, program)


def test_without_the_simulator_a_measurement_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The package can be installed alone; then nothing is written but this sentence."""
    monkeypatch.setitem(sys.modules, "trio_ai_stream", None)
    folder = tmp_path / "results"
    words = ["burst", "--adapter", "naive-quart-trio", "--out", str(folder)]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "expected the package trio-ai-stream, whose simulator" in said
    assert "pip install . ./packages/cancel-lab" in said
    assert not folder.exists()


def test_a_report_needs_no_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has only the records, and only this package, can make the tables of them."""
    monkeypatch.setitem(sys.modules, "trio_ai_stream", None)
    recorded = Path(__file__).parents[3] / "docs/data/cancellation/vanished"
    assert (
        main(["report", str(recorded / "results.jsonl.gz"), "--out", str(tmp_path)])
        == 0
    )
    assert (tmp_path / "tables.md").exists()

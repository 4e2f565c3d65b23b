"""Campaigns, installs and networks: what measuring a whole field needs beside runs."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cancel_lab.__main__ import main, make_parser
from cancel_lab.adapters.adapter import Adapter
from cancel_lab.adapters.catalogue import ADAPTERS
from cancel_lab.adapters.install import Install, InstallError
from cancel_lab.campaign import PACKED, SHORTEST_S, Plan, publish, ran, read_plan, run
from cancel_lab.network import LOSSY, WHOLE

PLAN = Path(__file__).parents[3] / "docs" / "data" / "cancellation" / "plan.json"


def test_the_published_plan_can_be_run() -> None:
    """Its steps are command lines that this instrument takes."""
    for words in read_plan(PLAN).steps.values():
        make_parser().parse_args([*words, "--out", "folder"])


def test_a_plan_that_is_none_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, and what was expected."""
    path = tmp_path / "plan.json"
    path.write_text('{"steps": []}')
    assert main(["campaign", str(path), "--out", str(tmp_path)]) == 2
    assert "plan.json: expected a plan" in capsys.readouterr().err


def test_a_step_without_time_is_left_out_and_said(tmp_path: Path) -> None:
    """So is one that fails; nothing of either is published."""
    steps = {"bad": ["probe"], "late": ["probe"]}
    said: list[str] = []
    plan = Plan(within_s=SHORTEST_S + 0.01, steps=steps)
    run(plan, tmp_path / "out", said.append)
    assert said[0].startswith("bad: status 2")
    assert json.loads((tmp_path / "out" / "campaign.json").read_text())["came"][1] == (
        "late: left out, for want of time"
    )
    (tmp_path / "into").mkdir()
    assert publish(tmp_path / "out", tmp_path / "into") == []


def test_a_step_that_could_not_measure_is_no_success(tmp_path: Path) -> None:
    """The exit status is 1; a step that found something (1) has measured."""
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"within_s": 60, "steps": {"bad": ["probe"]}}))
    assert main(["campaign", str(path), "--out", str(tmp_path / "out")]) == 1
    assert ran("matrix: status 1, 3 s")
    assert not ran("status 0: broken off, 3 s")


def test_what_is_published_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Records are packed without a time stamp."""
    step = tmp_path / "out" / "one"
    step.mkdir(parents=True)
    (tmp_path / "out" / "campaign.json").write_text("{}")
    for name in ("results.jsonl", "manifest.json", "summary.csv"):
        (step / name).write_text(name)
    for into in ("a", "b"):
        publish(tmp_path / "out", tmp_path / into)
    first, second = ((tmp_path / into / "one" / PACKED).read_bytes() for into in "ab")
    assert first == second
    assert gzip.decompress(first) == b"results.jsonl"


def test_a_server_of_its_own_environment_is_installed_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, it is missing, and the reason is the command; then it has a version."""
    monkeypatch.setenv("LAB_SERVERS", str(tmp_path))
    install = Install(
        commands=(("cp", "{apps}/relay.py", "{home}/server"),),
        program="server",
        version=("echo", "server", "1.2"),
    )
    adapter = Adapter(name="x", title="x", argv=("{home}/server",), install=install)
    assert adapter.missing() == "not installed: cancel-lab install x"
    install.run("x")
    assert adapter.missing() is None
    assert adapter.version() == "1.2"
    argv, _ = adapter.command(port=1, upstream="u")
    assert argv == [str(tmp_path / "x" / "server")]


def test_an_install_that_fails_says_what_the_installer_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error holds its last words."""
    monkeypatch.setenv("LAB_SERVERS", str(tmp_path))
    words = ("sh", "-c", "echo no such package; false")
    with pytest.raises(InstallError, match="no such package"):
        Install(commands=(words,), program="x", version=()).run("x")


def test_an_upstream_that_is_told_in_a_header_is_filled_in() -> None:
    """As Portkey needs it."""
    adapter = ADAPTERS["portkey"].before("http://u/api/v1")
    assert adapter.headers["x-portkey-custom-host"] == "http://u/api/v1"


def test_packets_of_servers_are_lost_and_of_nobody_else() -> None:
    """Both directions of each port; a whole network has no rule."""
    rules = LOSSY.rules([7]).splitlines()
    assert len(rules) == 2
    assert all("port 7 numgen random mod 100 < 5 drop" in rule for rule in rules)
    assert WHOLE.rules([7]) == ""


def test_a_client_that_vanishes_is_found(tmp_path: Path) -> None:
    """In a network namespace of its own: no FIN comes, and upstream is closed."""
    code = (
        "import sys; from cancel_lab.network import enter, NetworkError\n"
        "try: enter()\n"
        "except NetworkError as exc: sys.exit(str(exc))"
    )
    tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(tried.stderr.strip())
    words = ["probe", "--name", "ours", "--upstream-env", "OPENROUTER_BASE_URL"]
    command = "env UPSTREAM=openrouter OPENROUTER_API_KEY=x WRITE_TIMEOUT_SECS=1"
    command += f" PORT={{port}} {sys.executable} -m trio_ai_stream serve"
    words += ["--command", command, "--experiment", "vanished", "--vanished-for", "9"]
    argv = [sys.executable, "-m", "cancel_lab", *words, "--out", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert "pass=5" in done.stdout, done.stdout + done.stderr

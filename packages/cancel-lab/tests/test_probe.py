"""The probe end to end: a real server, the real simulator, two runs a cell."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from cancel_lab.__main__ import main, make_parser
from cancel_lab.adapters.adapter import Adapter
from cancel_lab.adapters.catalogue import ADAPTERS, NAIVE
from cancel_lab.clients.acts import Act
from cancel_lab.probe import Plan, interleaved, probe, skipped
from cancel_lab.process import ServerError, serving
from cancel_lab.records import RunRecord, Status
from cancel_lab.scenes import FIRST_TOKEN, STREAM
from cancel_lab.subcommands.shared import adapters_of
from cancel_lab.trial import Arena
from cancel_lab.upstream import (
    FIRST_LOOK_S,
    LONGEST_PAUSE_S,
    Entry,
    Upstream,
    simulating,
)


async def test_the_naive_server_is_measured_from_outside() -> None:
    """Each run has a cause, a notice after it, no waste to speak of; then it serves."""
    records: list[RunRecord] = []
    plan = Plan(
        n=2, warm_up=1, phases=(FIRST_TOKEN, STREAM), experiments=("notice",)
    )  # fmt: skip
    with trio.fail_after(25):
        async with simulating() as upstream:
            await probe([NAIVE], upstream, plan, records.append)
    notices = [record for record in records if record.experiment == "notice"]
    assert [record.phase for record in notices] == ["first_token"] * 2 + ["stream"] * 2
    for record in notices:
        assert record.status is Status.PASS
        latency = record.latency("t_up")
        assert latency is not None
        assert latency[1]
        assert 0 <= latency[0] < 1_500_000_000, "before the scene's hold was over"
        assert record.tokens["wasted"] <= 2
    assert records[-1].experiment == "recovery"
    assert records[-1].status is Status.PASS
    assert records[-1].terminal == "done"


async def test_a_server_that_dies_is_reported_with_its_last_words() -> None:
    """The error holds what the process said before it ended."""
    argv = ("python", "-c", "print('no such luck'); raise SystemExit(3)")
    with trio.fail_after(10), pytest.raises(ServerError, match="no such luck"):
        async with serving(argv, {}, port=1):
            raise AssertionError("it never listens")


def test_a_record_does_not_say_where_servers_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program's last words often name its own folder, and records are published."""
    monkeypatch.setenv("LAB_SERVERS", str(tmp_path))
    record = skipped(NAIVE, f"did not start: at file://{tmp_path}/naive/bin.js:1")
    assert record.reason == "did not start: at file://LAB_SERVERS/naive/bin.js:1"


class Empty(Upstream):
    """An upstream whose ledger has nothing; it notes when somebody looks."""

    def __init__(self) -> None:
        self.looks: list[float] = []

    async def look(self, tag: int, *, since: int) -> Entry | None:
        self.looks.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return None


async def test_nobody_looks_at_the_moment_of_the_cause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first look comes late, later ones more and more rarely: looking is work."""
    upstream = Empty()
    began = trio.current_time()
    with trio.move_on_after(1):
        await upstream.entry(1, lambda entry: True, since=0)
    first, *_, before, last = (at - began for at in upstream.looks)
    assert first == pytest.approx(FIRST_LOOK_S)
    assert last - before == pytest.approx(LONGEST_PAUSE_S)


def test_servers_are_interleaved_both_ways() -> None:
    """Two rounds run ABBA, so that drift falls on both alike."""
    first, second = (
        Arena(ADAPTERS[name], None, None)  # type: ignore[arg-type]
        for name in ("naive-quart-trio", "fastapi-awaited")
    )
    order = [arena for _, arena in interleaved([first, second], 2)]
    assert order == [first, second, second, first]


def test_wasted_tokens_are_those_sent_after_the_cause() -> None:
    """The ledger's last sends decide; without any from before, what was read does."""
    sends = [(10, 1), (20, 2), (30, 3)]
    entry = Entry(
        number=1, phase="ended", outcome="client_gone", events_sent=3, tokens_sent=3,
        bytes_sent=9, recent_sends=sends,
    )  # fmt: skip
    assert entry.wasted(20, read=0) == 1
    assert entry.wasted(5, read=0) == 3
    assert entry.wasted(35, read=0) == 0


def test_an_adapter_fills_in_ports_urls_and_models() -> None:
    """Braces of JSON bodies survive; only the known marks are replaced."""
    adapter = Adapter(
        name="x", title="x", argv=("serve", "{port}"), env={"U": "{upstream}/v1"}
    )  # fmt: skip
    argv, env = adapter.command(port=8, upstream="http://u")
    assert argv == ["serve", "8"]
    assert env == {"U": "http://u/v1"}
    body = adapter.request("simulator/fast").body
    assert b'"model":"simulator/fast"}' in body


def test_a_missing_package_is_a_reason_not_a_crash() -> None:
    """An adapter whose server is not installed says which package that is."""
    adapter = Adapter(name="x", title="x", argv=(), requires=("no_such_package",))
    assert adapter.missing() == "not installed: no_such_package"


def parse(*arguments: str) -> argparse.Namespace:
    """Parse a command line of the instrument."""
    return make_parser().parse_args(arguments)


def test_any_server_can_be_named_on_the_command_line() -> None:
    """A command, a URL, a body and a variable make an adapter."""
    arguments = parse(
        "probe", "--command", "serve --port {port}", "--url", "http://h:1/v1/c?x=1",
        "--header", "Authorization: Bearer k", "--upstream-env", "BASE",
        "--act", "client_rst",
    )  # fmt: skip
    (adapter,) = adapters_of(arguments)
    assert adapter.argv == ("serve", "--port", "{port}")
    assert adapter.path == "/v1/c?x=1"
    assert adapter.headers["authorization"] == "Bearer k"
    assert adapter.env == {"BASE": "{upstream}"}
    assert Act(arguments.act[0]) is Act.RST


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("probe",), "neither"),
        (("probe", "--adapter", "nginx"), "expected one of"),
        (("probe", "--command", "x", "--body", "{"), "expected JSON"),
        (("matrix", "--cause", "boredom"), "no cell"),
        (("probe", "--command", "'x"), "quotes in pairs"),
        (("probe", "--command", " "), "expected a program"),
        (("probe", "--mcp", "--command", "'x"), "quotes in pairs"),
        (("probe", "--command", "x", "--header", "secret"), "NAME:VALUE"),
        (("probe", "--command", "x", "--port", "99999"), "1 to 65535"),
        (("probe", "--mcp", "--report-port", "99999"), "1 to 65535"),
        (("probe", "--command", "x", "--within", "-1"), "seconds above 0"),
        (("probe", "--command", "x", "--within", "nan"), "seconds above 0"),
        (("probe", "--command", "x", "--watch", "soon"), "seconds above 0"),
        (("probe", "--command", "x", "--act", "h2_goaway"), "invalid choice"),
        (("burst", "--streams", "0"), "1 or more"),
        (("burst", "--repeats", "0"), "1 or more"),
        (("report", os.devnull), f"{os.devnull}: expected at least one run record"),
    ],
)
def test_bad_usage_ends_with_2_and_a_sentence(
    arguments: tuple[str, ...],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The error says what was expected."""
    monkeypatch.chdir(tmp_path)  # where results would go
    try:
        status: object = main(arguments)
    except SystemExit as exc:  # argparse's
        status = exc.code
    assert status == 2
    assert problem in capsys.readouterr().err


# A gateway that asks upstream for a model of its own, whatever its client asks for.
STUBBORN = """
import http.server, json, os, sys, urllib.request

class Gateway(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        said = [{"role": "user", "content": "hi"}]
        body = json.dumps({"model": "own/model", "messages": said, "stream": True})
        url = os.environ["UP"] + "/chat/completions"
        fields = {"authorization": "Bearer x", "content-type": "application/json"}
        request = urllib.request.Request(url, body.encode(), fields)
        try:
            answer = urllib.request.urlopen(request).read()
        except OSError:
            answer = b""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Gateway).serve_forever()
"""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("false", "the process ended with status 1"),
        ("no-such-program", "No such file or directory"),
        (
            f"{sys.executable} -c {shlex.quote(STUBBORN)} {{port}}",
            "it asked for 'own/model': it chooses its own",
        ),
    ],
)
def test_a_server_that_cannot_be_measured_is_one_sentence(
    command: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, and why; not a table full of errors."""
    words = ["--command", command, "--upstream-env", "UP", "--n", "1"]
    words += ["--experiment", "notice", "--out", str(tmp_path)]
    assert main(["probe", *words]) == 2
    assert said in capsys.readouterr().err

"""The probe of MCP servers: messages, lives, verdicts, and a real SDK."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from cancel_lab.__main__ import main
from cancel_lab.clients.acts import Transport
from cancel_lab.mcp import messages, verdicts
from cancel_lab.mcp.client import MCPClient
from cancel_lab.mcp.experiment import MCPExperiment, MCPPlan, Phase
from cancel_lab.mcp.life import SILENCE_S, VARIABLE, Life, LifeReports, listening
from cancel_lab.mcp.messages import LEGACY, MODERN, Address
from cancel_lab.process import free_port, serving
from cancel_lab.records import RunRecord, Status, Sut

SERVERS = Path(__file__).parents[1] / "mcp_servers"
# Two servers of the real SDK in one process: one as it is, one whose tool goes on
# although its request has been cancelled.
PROGRAM = """
import asyncio, sys
import hypercorn.asyncio, hypercorn.config
sys.path.insert(0, sys.argv[1])
import python_sdk
from work import work

deaf = python_sdk.MCPServer("deaf")

@deaf.tool(name="work")
async def shielded(
    run: str, seconds: float, progress: int, context: python_sdk.Context
) -> str:
    working = work(run, seconds, progress, context.report_progress)
    return await asyncio.shield(working)

def serve(server, port):
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{port}"]
    return hypercorn.asyncio.serve(server.streamable_http_app(), config)

async def main():
    await asyncio.gather(
        serve(python_sdk.server, sys.argv[2]), serve(deaf, sys.argv[3])
    )

asyncio.run(main())
"""


async def measured(port: int, reports: LifeReports, plan: MCPPlan) -> list[RunRecord]:
    """Return the records of a server that runs."""
    records: list[RunRecord] = []
    client = MCPClient(Address(port, "/mcp"), plan.transport)
    await client.negotiate()
    assert client.version == MODERN
    await MCPExperiment(client, reports, plan).run(records.append)
    return records


async def test_a_real_sdk_stops_its_work_and_a_deaf_tool_does_not() -> None:
    """A client that leaves ends the tool in every phase, and no call beside it."""
    port, deaf_port = free_port(), free_port()
    argv = [sys.executable, "-c", PROGRAM, str(SERVERS), str(port), str(deaf_port)]
    gone = tuple(phase for phase in Phase if phase is not Phase.NOTIFIED)
    with trio.fail_after(40):
        async with (
            listening() as reports,
            serving(argv, {VARIABLE: reports.address}, port=deaf_port),
        ):
            for transport in (Transport.H1, Transport.H2C):
                plan = MCPPlan(
                    name=transport.value, n=1, phases=gone, transport=transport
                )
                records = await measured(port, reports, plan)
                runs = [run for run in records if run.experiment == "mcp"]
                assert [run.phase for run in runs] == [phase.value for phase in gone]
                for run in runs:
                    assert run.status is Status.PASS, run
                    assert run.terminal == "CancelledError"
                survivals = [run for run in records if run.experiment == "survival"]
                assert [run.status for run in survivals] == [Status.PASS] * len(gone)
                assert verdicts.conforms(records)
            plan = MCPPlan(name="deaf", n=1, within_s=0.1, phases=(Phase.SILENT,))
            records = await measured(deaf_port, reports, plan)
    assert records[0].status is Status.VIOLATED
    assert records[0].violations == ["the tool worked to its end"]
    assert not verdicts.conforms(records)
    assert verdicts.rows(records)[1][-1] == "does not conform: 1 of 1"


def record(phase: Phase, version: str, status: Status = Status.PASS) -> RunRecord:
    """Return one run's record."""
    now = time.monotonic_ns()
    return RunRecord(
        run_id="r", tier="mcp", experiment="mcp", sut=Sut(name="s", version=version),
        cause="client_fin", phase=phase.value, transport="h1", status=status,
        times={"t_cause": now, "t_work_end": now + 1_000_000}, terminal="AbortError",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "version", "n", "said"),
    [
        (Phase.BEFORE, MODERN, 20, "conforms"),
        (Phase.BEFORE, MODERN, 19, "not judged: fewer than 20 runs"),
        (Phase.BEFORE, LEGACY, 20, "not judged: speaks 2025-11-25"),
        (Phase.NOTIFIED, MODERN, 20, "not judged: not demanded over HTTP"),
    ],
)
def test_a_verdict_needs_enough_runs_and_a_rule(
    phase: Phase, version: str, n: int, said: str
) -> None:
    """What no revision demands, or too few runs show, is not judged."""
    assert verdicts.verdict([record(phase, version)] * n, phase) == said


def test_one_failure_among_many_is_one() -> None:
    """A MUST that fails once in twenty runs is not kept."""
    runs = [record(Phase.BEFORE, MODERN)] * 19
    runs.append(record(Phase.BEFORE, MODERN, Status.VIOLATED))
    assert verdicts.verdict(runs, Phase.BEFORE) == "does not conform: 1 of 20"
    assert round(verdicts.could_still_fail(20), 3) == 0.139


def test_a_request_of_2026_says_in_its_head_what_its_body_says() -> None:
    """The fields of the head that the revision demands, and `_meta`."""
    params = messages.tool_call("run", 1, 2, 7)
    made = messages.request(
        Address(80, "/mcp"), "tools/call", params, version=MODERN, number=7
    )
    body = json.loads(made.body)
    assert made.headers["mcp-protocol-version"] == MODERN
    assert made.headers["mcp-method"] == "tools/call"
    assert made.headers["mcp-name"] == "work"
    assert body["id"] == 7
    assert body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == MODERN
    assert body["params"]["_meta"]["progressToken"] == 7


def test_messages_of_half_a_stream_are_those_that_are_whole() -> None:
    """An event without its end of line is not yet one; comments are none."""
    body = b': hi\n\ndata: {"id": 1, "result": {}}\n\ndata: {"id": 2'
    assert messages.messages(body, "text/event-stream") == [{"id": 1, "result": {}}]
    assert messages.messages(b'{"id": 3}', "application/json") == [{"id": 3}]
    assert messages.messages(b'{"id": ', "application/json") == []
    assert not messages.belongs({"id": 1, "result": {}}, 2)
    assert messages.belongs({"method": "x", "params": {"progressToken": 2}}, 2)


async def test_a_life_without_a_word_ends_by_silence(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A tool that was killed told nothing; its last report is its end."""
    life = Life()
    life.tell("started", "", 5)
    before = trio.current_time()
    await life.over()
    assert trio.current_time() - before == pytest.approx(SILENCE_S)
    assert (life.ended_ns, life.how) == (5, "silence")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mcp", "--command", "x", "--n", "0"], "expected at least one run"),
        (["--mcp"], "expected its URL, or --command"),
        (["--mcp", "http://127.0.0.1:1/mcp"], "expected --report-port N as well"),
        (
            ["--mcp", "https://example.org/mcp", "--report-port", "1"],
            "expected http://127.0.0.1:PORT/PATH",
        ),
        (["--mcp", "--command", "no-such-program"], "command that can be started"),
        (["--mcp", "--command", "false"], "the process ended with status 1"),
        (
            ["--mcp", "--command", "python -m http.server {port} -b 127.0.0.1"],
            "expected a server of MCP",
        ),
    ],
)
def test_a_misuse_is_one_sentence(
    words: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 2, and what was expected."""
    assert main(["probe", *words, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err

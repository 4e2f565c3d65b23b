"""The probe of MCP servers, where the server means ill or is none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from cancel_lab.clients.acts import Transport
from cancel_lab.mcp import experiment
from cancel_lab.mcp.client import MCPClient
from cancel_lab.mcp.experiment import MCPExperiment, MCPPlan, Phase
from cancel_lab.mcp.life import Life, listening
from cancel_lab.mcp.messages import Address
from cancel_lab.records import RunRecord
from cancel_lab.trial import TrialError

JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
EVENTS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@asynccontextmanager
async def server(*answers: bytes, endless: bytes = b"") -> AsyncIterator[MCPClient]:
    """Give a client of what answers each request with the next, the last for ever."""
    left = list(answers)

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some(65536)
            await stream.send_all(left.pop(0) if left[1:] else left[0])
            while endless:
                await stream.send_all(endless)
            await stream.aclose()

    async with trio.open_nursery() as nursery:
        start = partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        listeners = await nursery.start(start)
        port = listeners[0].socket.getsockname()[1]
        yield MCPClient(Address(port, "/mcp"), Transport.H1)
        nursery.cancel_scope.cancel(reason="asked")


@pytest.mark.parametrize(
    "answers",
    [
        [b"SSH-2.0-x\r\n\r\n"],
        [b"HTTP/1.1 abc\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nabc"],
        [EVENTS + b"zz\r\n"],
        [EVENTS + b"-5\r\nabc"],
        [JSON + 99_999 * b"["],
        [JSON + b"[]"],
        *([JSON + b'{"id":1,"result":%b}' % r] for r in (b"[]", b'"x"', b"5", b"null")),
        [JSON + b'{"id":1,"result":{"_meta":"x"}}'],
        [JSON + b'{"id":2,"result":{"protocolVersion":5,"serverInfo":[]}}'],
        *(
            [
                JSON + b'{"id":1,"result":{}}',
                JSON + b'{"id":2,"result":{"tools":%b}}' % t,
            ]
            for t in (b"5", b"[5,null,{}]", b'[{"name":[]}]')
        ),
    ],
)
async def test_what_is_no_server_of_mcp_is_said(answers: list[bytes]) -> None:
    """In a sentence about what was expected, whatever is wrong with the answer."""
    async with server(*answers) as client:
        with trio.fail_after(5), pytest.raises(TrialError, match="expected a "):
            await client.negotiate()


@pytest.mark.parametrize(
    ("answer", "more"),
    [
        (JSON, 65536 * b" "),
        (EVENTS, b"1000\r\n" + 4096 * b"\n" + b"\r\n"),
        (EVENTS, b"1" * 9999),
    ],
    ids=["body", "stream", "chunk"],
)
async def test_an_answer_without_end_is_cut(answer: bytes, more: bytes) -> None:
    """What is kept of it is bounded."""
    async with server(answer, endless=more) as client:
        with trio.fail_after(8), pytest.raises(TrialError, match="expected a server"):
            await client.negotiate()


async def test_reports_of_others_and_rubbish_are_passed_over() -> None:
    """Only runs that were asked for are kept, and no word steers a terminal."""
    async with listening() as reports:
        life = reports.life("mine")
        ended = {"run": "mine", "event": "ended", "how": "\x1b]52;x\x07"}
        sent: list[object] = [
            "[" * 4000,
            "\xff",
            {"run": {}},
            {"run": "x", "event": ""},
        ]
        host, _, port = reports.address.partition(":")
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sender:
            for one in [*sent, ended]:
                data = one if isinstance(one, str) else json.dumps(one)
                await sender.sendto(data.encode(), (host, int(port)))
        with trio.fail_after(5):
            await life.over()
        assert life.how == "\ufffd]52;x\ufffd"
        assert reports.life("x") == Life()


async def test_a_tool_that_tells_nothing_ends_the_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After its first call, and the operator is told which variable is missing."""
    monkeypatch.setattr(experiment, "REACH_S", -0.9)
    records: list[RunRecord] = []
    plan = MCPPlan(name="mute", n=20, within_s=0.1, phases=(Phase.SILENT,))
    async with (
        server(EVENTS, endless=b"8\r\n: hi\n\n\n\n\r\n") as client,
        listening() as it,
    ):
        with trio.fail_after(5), pytest.raises(TrialError, match="CANCEL_LAB_REPORT"):
            await MCPExperiment(client, it, plan).run(records.append)

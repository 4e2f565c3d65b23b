"""The terminal client comes back to its stream when its connection is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from loguru import logger

from tests.support.serving import ServerProcess
from trio_ai_stream.chat_client.chat_exchange import ChatExchange
from trio_ai_stream.chat_client.server_client import NO_CIRCUIT
from trio_ai_stream.upstream.transport import UpstreamTransport


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server without keys."""
    process = ServerProcess(tmp_path_factory.mktemp("server") / "log")
    yield process
    process.stop()


class Cutter:
    """A proxy that loses its first connections after so many events each.

    One for which it has bytes gets those, as from a proxy that cannot reach the server.
    """

    def __init__(self, port: int, events: list[int | bytes]) -> None:
        self._port = port
        self._events = events
        self.lost = trio.Event()

    async def serve(self, client: trio.SocketStream) -> None:
        """Forward one connection both ways, until it is lost."""
        most = self._events.pop(0) if self._events else None
        if isinstance(most, bytes):
            async with client:
                await client.receive_some()
                await client.send_all(most)
            return
        async with (
            await trio.open_tcp_stream("127.0.0.1", self._port) as server,
            client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._upwards, client, server)
            await self._downwards(server, client, most)
            nursery.cancel_scope.cancel(reason="lost or over")

    async def _upwards(
        self, client: trio.SocketStream, server: trio.SocketStream
    ) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in client:
                await server.send_all(data)

    async def _downwards(
        self, server: trio.SocketStream, client: trio.SocketStream, most: int | None
    ) -> None:
        seen = 0
        with suppress(trio.BrokenResourceError):
            async for data in server:
                await client.send_all(data)
                seen += data.count(b"data: ")
                if most is not None and seen >= most:
                    self.lost.set()
                    return


async def answer(
    server: ServerProcess,
    model: str,
    losses: list[int | bytes],
    *,
    cancel: bool = False,
) -> tuple[int, list[dict[str, Any]], str]:
    """Ask over the proxy; return the exit code, the events and what stderr says."""
    cutter = Cutter(httpx.URL(server.url).port or 0, losses)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, cutter.serve, 0, host="127.0.0.1")
        )
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        words = [sys.executable, "-m", "trio_ai_stream", "chat", "--url", url, "--json"]
        process = await trio.lowlevel.open_process(
            [*words, "--model", model, "hello"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        if cancel:
            await cutter.lost.wait()
            process.send_signal(signal.SIGINT)
        async with process.stdout, process.stderr:
            out = b"".join([data async for data in process.stdout])
            said = b"".join([data async for data in process.stderr])
        code = await process.wait()
        nursery.cancel_scope.cancel(reason="over")
    return code, [json.loads(line) for line in out.splitlines()], said.decode()


async def test_a_lost_connection_is_not_the_end(server: ServerProcess) -> None:
    """Lost and lost again, the answer is whole: no event is missing or comes twice."""
    with trio.fail_after(20):
        model = "simulator/default?chunks=12&delay_ms=50"
        code, shown, _ = await answer(server, model, [3, 2])
        _, expected, _ = await answer(server, model, [])
    assert code == 0
    texts = [[e["choices"] for e in found] for found in (shown, expected)]
    assert texts[0] == texts[1]
    record = server.ended(shown[0]["id"])
    assert record["outcome"] == "completed"
    assert record["resumes"] >= 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_who_is_told_to_try_again_does_so(
    status: int, server: ServerProcess
) -> None:
    """Whoever stands in between, or is asked, may not have the stream just now.

    It was given up, and its grace with it.
    """
    refusal = b"HTTP/1.1 %d Not Now\r\nContent-Length: 2\r\n\r\nno" % status
    with trio.fail_after(20):
        model = "simulator/default?chunks=12&delay_ms=50"
        code, shown, said = await answer(server, model, [3, refusal, refusal])
    assert (code, "trying for 15 s to come back" in said) == (0, True)
    assert server.ended(shown[0]["id"])["outcome"] == "completed"


async def test_ctrl_c_cancels_by_id_after_a_loss(server: ServerProcess) -> None:
    """The stream is cancelled although its first connection is gone."""
    with trio.fail_after(20):
        model = "simulator/default?endless=1"
        code, shown, said = await answer(server, model, [3], cancel=True)
    assert code == 130
    assert "cancelled: upstream closed in" in said
    assert server.ended(shown[0]["id"])["outcome"] == "cancelled"


async def test_a_server_that_is_gone_is_said_and_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """At once that the connection is lost; after the grace why, and what there was."""
    began = trio.current_time()
    said: list[str] = []
    logged: list[str] = []
    sink = logger.add(logged.append)
    shown: list[dict[str, Any]] = []

    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(
        b"HTTP/1.1 200 OK\r\nx-stream-grace: 15\r\n"
        b"x-stream-resume: /streams/x/events\r\n\r\n"
        b'id: 1\ndata: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    )
    await theirs.aclose()
    connections = [ours]

    async def connect(*_: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if not connections:
            raise ConnectionRefusedError("gone")
        return connections.pop()

    transport = UpstreamTransport(connect=connect, limits=NO_CIRCUIT)
    url = "http://server.example"
    async with httpx.AsyncClient(transport=transport, base_url=url) as client:
        exchange = ChatExchange(client, shown.append, said.append)
        ending = await exchange.run({"messages": []})
    logger.remove(sink)
    assert logged == []  # it would stand in the middle of the conversation
    assert len(shown) == 1
    assert said == ["connection lost; trying for 15 s to come back"]
    assert ending.code == 1
    assert "no way back to the stream in 15 s; 1 event in " in ending.line
    assert 14 < trio.current_time() - began < 16


async def test_a_proxy_without_its_server_is_waited_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """An answer of 5xx to the return is no end: the stream may be there behind it."""
    head = b"HTTP/1.1 200 OK\r\nx-stream-grace: 15\r\n"
    event = b'id: %d\ndata: {"choices":[{"delta":{"content":"%b"}}]}\n\n'
    refusals = [
        b"HTTP/1.1 %d No\r\ncontent-length: 6\r\n\r\n<html>" % status
        for status in (502, 503, 429)
    ]
    answers = [
        head + b"x-stream-resume: /streams/x/events\r\n\r\n" + event % (1, b"a"),
        *refusals,
        head + b"\r\n" + event % (2, b"b") + b"data: [DONE]\n\n",
    ]

    async def connect(*_: object) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(answers.pop(0))
        await theirs.aclose()
        return ours

    shown: list[dict[str, Any]] = []
    said: list[str] = []
    transport = UpstreamTransport(connect=connect, limits=NO_CIRCUIT)
    url = "http://server.example"
    async with httpx.AsyncClient(transport=transport, base_url=url) as client:
        exchange = ChatExchange(client, shown.append, said.append)
        ending = await exchange.run({"messages": []})
    texts = [one["choices"][0]["delta"]["content"] for one in shown]
    assert (ending.code, texts, answers) == (0, ["a", "b"], [])
    assert said == ["connection lost; trying for 15 s to come back"]

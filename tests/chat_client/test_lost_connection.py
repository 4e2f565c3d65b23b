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

from tests.support.serving import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server without keys."""
    process = ServerProcess(tmp_path_factory.mktemp("server") / "log")
    yield process
    process.stop()


class Cutter:
    """A proxy that loses its first connections after so many events each."""

    def __init__(self, port: int, events: list[int]) -> None:
        self._port = port
        self._events = events
        self.lost = trio.Event()

    async def serve(self, client: trio.SocketStream) -> None:
        """Forward one connection both ways, until it is lost."""
        async with (
            await trio.open_tcp_stream("127.0.0.1", self._port) as server,
            client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._upwards, client, server)
            await self._downwards(server, client)
            nursery.cancel_scope.cancel(reason="lost or over")

    async def _upwards(
        self, client: trio.SocketStream, server: trio.SocketStream
    ) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in client:
                await server.send_all(data)

    async def _downwards(
        self, server: trio.SocketStream, client: trio.SocketStream
    ) -> None:
        most = self._events.pop(0) if self._events else None
        seen = 0
        with suppress(trio.BrokenResourceError):
            async for data in server:
                await client.send_all(data)
                seen += data.count(b"data: ")
                if most is not None and seen >= most:
                    self.lost.set()
                    return


async def answer(
    server: ServerProcess, model: str, losses: list[int], *, cancel: bool = False
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


async def test_ctrl_c_cancels_by_id_after_a_loss(server: ServerProcess) -> None:
    """The stream is cancelled although its first connection is gone."""
    with trio.fail_after(20):
        model = "simulator/default?endless=1"
        code, shown, said = await answer(server, model, [3], cancel=True)
    assert code == 130
    assert "cancelled: upstream closed in" in said
    assert server.ended(shown[0]["id"])["outcome"] == "cancelled"

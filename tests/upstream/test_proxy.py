"""Upstream through a proxy: the same seam, over httpx's own transport."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
import trio
import trio.testing

from trio_ai_stream.simulator.simulator import Simulator
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.proxy import ProxiedTransport, proxy_for
from trio_ai_stream.wire.events import Done, Item

BODY = b'{"model":"%s","stream":true,"messages":[{"role":"user","content":"hi"}]}'


async def forward(client: trio.SocketStream) -> None:
    """Be an HTTP proxy for one connection: read a head, connect, pass bytes on."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await client.receive_some()
    method, target, rest = head.split(b" ", 2)
    url = httpx.URL(target.decode())
    async with client, await trio.open_tcp_stream(url.host, url.port or 80) as server:
        await server.send_all(b" ".join([method, url.raw_path, rest]))

        async def back(nursery: trio.Nursery) -> None:
            async for data in server:
                await client.send_all(data)
            nursery.cancel_scope.cancel(reason="upstream is done")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(back, nursery)
            async for data in client:
                await server.send_all(data)
            nursery.cancel_scope.cancel(reason="the client is gone")


# httpx's own chain of generators is not closed when a body is left before its end.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize(
    ("model", "whole", "kept"),
    [("fast", False, 1), ("fast", True, 1), ("silent", False, 0)],
    ids=["ended", "document", "aborted"],
)
async def test_a_stream_through_a_proxy_ends_and_aborts_like_any_other(
    model: str, whole: bool, kept: int
) -> None:
    """A whole answer leaves its connection; an abort reaches upstream at once."""
    simulator = Simulator()
    items: list[Item] = []
    held: list[Callable[[], None] | None] = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            address = await nursery.start(simulator.serve)
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, forward, listeners)
            port = listeners[0].socket.getsockname()[1]
            upstream = OpenRouter(
                ProxiedTransport(f"http://127.0.0.1:{port}", nursery),
                base_url=address.base_url,
                kind="openrouter",
                headers={},
                connect_s=5,
                buffer_bytes=1_000_000,
            )
            body = BODY % f"simulator/{model}".encode()
            if whole:
                body = body.replace(b'"stream":true', b'"stream":false')
            source = await upstream.open(
                UpstreamRequest("r1", model, body, whole=whole),
                trio.lowlevel.checkpoint,
                held.append,
            )
            while not (items and type(items[-1]) is Done) and len(items) < 5:
                items += await source.receive() or []
            if model == "silent":
                source.abort()
                record = await simulator.ledger.wait_for("r1", "client_gone")
                assert record.events_after_gone == 0
            else:
                while not whole and await source.receive() is not None:
                    pass
                await source.finish()
            source.abort()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert simulator.connections == kept
            assert held == []  # which connection it has is httpx's secret
            await upstream.aclose()
            nursery.cancel_scope.cancel(reason="test over")
    assert [item for item in items if isinstance(item, str)]


def test_the_environment_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY, ALL_PROXY and NO_PROXY are read as every client reads them."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert proxy_for("https://up.example/api") is None
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    assert proxy_for("https://up.example/api") == "http://all:1"
    monkeypatch.setenv("HTTPS_PROXY", "http://tls:2")
    assert proxy_for("https://up.example/api") == "http://tls:2"
    monkeypatch.setenv("NO_PROXY", "example,localhost")
    assert proxy_for("https://up.example/api") is None
    assert proxy_for("https://elsewhere.test/api") == "http://tls:2"

"""Upstream through a proxy: the same connections, over a tunnel."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
import trustme

from tests.upstream.transport.servers import OK, forever, serving
from trio_ai_stream.dialects.plain_chat import PLAIN_CHAT
from trio_ai_stream.settings import SettingsError, load_settings
from trio_ai_stream.simulator.simulator import Simulator
from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.upstream.factory import egress_of, proxy_for
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.transport import Origin, Proxy, UpstreamTransport
from trio_ai_stream.wire.events import Done, Item
from trio_ai_stream.wire.record import Outcome

BODY = b'{"model":"%s","stream":true,"messages":[{"role":"user","content":"hi"}]}'
LOGIN = "Basic dXNlcjpzZWNyZXQ="


async def tunnel(
    client: trio.abc.Stream, *, answer: bytes = b"200 Connected", heads: list[bytes]
) -> None:
    """Be an HTTP proxy for one connection: read a head, connect, pass bytes on."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await client.receive_some()
    heads.append(head)
    _, target, _ = head.split(b" ", 2)
    await client.send_all(b"HTTP/1.1 " + answer + b"\r\n\r\n")
    if not answer.startswith(b"2"):
        await client.aclose()
        return
    host, _, port = target.decode().rpartition(":")
    async with client, await trio.open_tcp_stream(host, int(port)) as server:

        async def back(nursery: trio.Nursery) -> None:
            async for data in server:
                await client.send_all(data)
            nursery.cancel_scope.cancel(reason="upstream is done")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(back, nursery)
            async for data in client:
                await server.send_all(data)
            nursery.cancel_scope.cancel(reason="the client is gone")


@asynccontextmanager
async def proxy_serving(
    heads: list[bytes],
    *,
    answer: bytes = b"200 Connected",
    secured: ssl.SSLContext | None = None,
) -> AsyncIterator[Origin]:
    """Serve as a proxy, over TLS if `secured`."""
    handler = partial(tunnel, answer=answer, heads=heads)
    async with trio.open_nursery() as nursery:
        listener: object
        if secured is None:
            serve = partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
            listener = (await nursery.start(serve))[0]
        else:
            over_tls = partial(
                trio.serve_ssl_over_tcp, handler, 0, secured, host="127.0.0.1"
            )
            listener = (await nursery.start(over_tls))[0].transport_listener
        port = port_of(listener)
        yield Origin(secured is not None, "127.0.0.1", port)
        nursery.cancel_scope.cancel(reason="test over")


def port_of(listener: object) -> int:
    """The port of a listener for sockets."""
    assert isinstance(listener, trio.SocketListener)
    port: int = listener.socket.getsockname()[1]
    return port


def openrouter(transport: UpstreamTransport, base_url: str) -> OpenRouter:
    """Upstream at `base_url`."""
    return OpenRouter(
        transport,
        base_url=base_url,
        kind="openrouter",
        headers={},
        connect_s=5,
        buffer_bytes=1_000_000,
    )


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
        async with trio.open_nursery() as nursery, proxy_serving([]) as proxy:
            address = await nursery.start(simulator.serve)
            transport = UpstreamTransport(proxy=Proxy(proxy))
            upstream = openrouter(transport, address.base_url)
            body = BODY % f"simulator/{model}".encode()
            if whole:
                body = body.replace(b'"stream":true', b'"stream":false')
            response = await upstream.open(
                UpstreamRequest("r1", model, body, PLAIN_CHAT, whole=whole),
                trio.lowlevel.checkpoint,
                held.append,
            )
            while not (items and type(items[-1]) is Done) and len(items) < 5:
                items += await response.receive() or []
            if model == "silent":
                response.abort()
                record = await simulator.ledger.wait_for("r1", "client_gone")
                assert record.events_after_gone == 0
            else:
                while not whole and await response.receive() is not None:
                    pass
                await response.finish()
            response.abort()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert simulator.connections == transport.statistics().idle == kept
            assert held[0] is not None
            assert held[-1] is None
            await upstream.aclose()
            nursery.cancel_scope.cancel(reason="test over")
    assert [item for item in items if isinstance(item, str)]


@pytest.mark.parametrize("to_proxy", [False, True], ids=["plain", "tls"])
async def test_tls_is_spoken_with_upstream_itself(to_proxy: bool) -> None:
    """The proxy sees CONNECT and ciphertext, also where TLS leads to it as well."""
    authority = trustme.CA()
    secured = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(secured)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    heads: list[bytes] = []
    big = b"x" * 100_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + big

    async def upstream(client: trio.abc.Stream) -> None:
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := await client.receive_some()):
                    return
                head += data
            await client.send_all(answer)

    with trio.fail_after(20):
        async with (
            trio.open_nursery() as nursery,
            proxy_serving(heads, secured=secured if to_proxy else None) as proxy,
        ):
            listeners = await trio.open_ssl_over_tcp_listeners(
                0, secured, host="127.0.0.1"
            )
            nursery.start_soon(trio.serve_listeners, upstream, listeners)
            port = port_of(listeners[0].transport_listener)
            transport = UpstreamTransport(
                proxy=Proxy(proxy, LOGIN), ssl_context=trusting
            )
            async with httpx.AsyncClient(transport=transport) as client:
                for _ in range(2):
                    got = await client.get(f"https://localhost:{port}/")
                    assert got.content == big
            nursery.cancel_scope.cancel(reason="test over")
    assert heads == [
        f"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n"
        f"Proxy-Authorization: {LOGIN}\r\n\r\n".encode()
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"407 Proxy Authentication Required", "answered 407"),
        (b"200 Connected\r\n\r\nmore than asked", "answered 200"),
        (b"no status", "no HTTP"),
    ],
)
async def test_what_a_proxy_refuses_is_unreachable(answer: bytes, said: str) -> None:
    """The log names the proxy; the request has not been sent, so it may be again."""
    with trio.fail_after(20):
        async with (
            serving(forever(OK)) as server,
            proxy_serving([], answer=answer) as proxy,
        ):
            upstream = openrouter(UpstreamTransport(proxy=Proxy(proxy)), server.url)
            with pytest.raises(EndStream) as caught:
                await upstream.open(
                    UpstreamRequest("r1", "m", b"{}", PLAIN_CHAT),
                    trio.lowlevel.checkpoint,
                    lambda _abort: None,
                )
            await upstream.aclose()
    assert caught.value.outcome is Outcome.UPSTREAM_UNREACHABLE
    assert caught.value.detail.startswith("proxy: ")
    assert said in caught.value.detail
    assert caught.value.problem is not None
    assert caught.value.problem.resend


def test_the_environment_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY, ALL_PROXY and NO_PROXY are read as every client reads them."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert proxy_for("https://up.example/api") is None
    monkeypatch.setenv("ALL_PROXY", "all:1")
    assert proxy_for("https://up.example/api") == Proxy(Origin(False, "all", 1))
    monkeypatch.setenv("HTTPS_PROXY", "https://user:secret@tls")
    proxy = Proxy(Origin(True, "tls", 443), LOGIN)
    assert proxy_for("https://up.example/api") == proxy
    assert LOGIN not in repr(proxy)
    monkeypatch.setenv("NO_PROXY", "example,localhost")
    assert proxy_for("https://up.example/api") is None
    assert proxy_for("https://elsewhere.test/api") == proxy
    monkeypatch.setenv("NO_PROXY", "10.0.0.1:8443,::1")
    assert proxy_for("https://10.0.0.1:8443/api") is None
    assert proxy_for("https://[::1]:8443/api") is None
    assert proxy_for("https://10.0.0.1/api") == proxy
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:secret@tls")
    with pytest.raises(ValueError, match="HTTPS_PROXY: expected a proxy") as caught:
        proxy_for("https://elsewhere.test/api")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@tls:65536")
    with pytest.raises(ValueError, match="HTTPS_PROXY: expected a proxy's port of 1"):
        proxy_for("https://elsewhere.test/api")


def test_the_simulator_is_reached_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is in this process, and no proxy could reach it."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    url = {"OPENROUTER_BASE_URL": "http://up.test/api", "OPENROUTER_API_KEY": "a-key"}
    settings = load_settings({**url, "UPSTREAM": "simulator"}, None)
    assert egress_of(settings).proxy is None
    settings = load_settings(url, None)
    assert egress_of(settings).proxy == Proxy(Origin(False, "proxy.test", 3128))


def test_certificates_are_read_where_tls_is_spoken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And then what is wrong with the file that the environment names is said."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "trusted.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    plain = {"OPENROUTER_BASE_URL": "http://up.test/api", "OPENROUTER_API_KEY": "a-key"}
    assert egress_of(load_settings(plain, None)).tls.get_ca_certs() == []
    settings = load_settings({"OPENROUTER_API_KEY": "a-key"}, None)
    for why in ("No such file or directory", "no certificates"):
        with pytest.raises(SettingsError, match=why) as caught:
            egress_of(settings)
        assert caught.value.problems[0].startswith("SSL_CERT_FILE: expected")
        file.touch()
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(SettingsError, match="a pipe; name a regular file"):
        egress_of(settings)

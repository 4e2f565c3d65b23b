"""Every wait that a client can cause has an end (promise 3)."""

from __future__ import annotations

import os
import re
import time
from functools import partial
from typing import Any

import pytest
import trio

from tests.support.server import frames as f
from tests.support.server.client import Client, get, status_of
from tests.support.server.servers import LocalServer, serve_while, tls_config

POST = b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nhalf"
LONG_POST = POST.replace(b": 9", b": 999")
CHUNKED_POST = b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
H2_POST = f.hello() + f.request(1, b"/echo", method=b"POST", end=False)

EXPIRES: dict[str, tuple[dict[str, Any], bytes, int, str]] = {
    "nothing": ({"head_read_s": 0.2}, b"", 0, "head_timeout"),
    "half a head": (
        {"head_read_s": 0.2},
        b"GET / HTTP/1.1\r\nHost",
        408,
        "head_timeout",
    ),
    "half a preface": ({"head_read_s": 0.2}, f.PREFACE[:9], 0, "head_timeout"),
    "half a body": ({"body_read_s": 0.2}, POST, 408, "body_timeout"),
    "idle": ({"keep_alive_s": 0.2}, get("/ok"), 200, "idle_timeout"),
    "idle after HTTP/1 bytes": (
        {"keep_alive_s": 9, "head_read_s": 0.2},
        get("/ok") + b"GET /",
        200,
        "head_timeout",
    ),
}


@pytest.mark.parametrize("name", EXPIRES)
async def test_a_client_that_says_too_little_is_let_go(name: str) -> None:
    """Head, body and idleness each have a time, told by 408 where HTTP can."""
    limits, data, status, intervention = EXPIRES[name]

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(data)
            answer = await client.read_to_end()
            assert status_of(answer) == status
            last = re.findall(rb"HTTP/1\.1 (\d{3})", answer)[-1:]
            assert last in ([], [b"408"], [b"200"])
        assert server.hardened.tally.interventions[intervention] == 1  # type: ignore[index]

    await serve_while(body, **limits)


@pytest.mark.parametrize(
    "parts",
    [
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
        (LONG_POST, b"z"),
        (get("/ok") + LONG_POST, b"z"),
        (CHUNKED_POST, b"1\r\nz\r\n"),
    ],
    ids=["a head", "a body", "a pipelined body", "chunks"],
)
async def test_a_slow_loris_gains_nothing_by_dripping(
    parts: tuple[bytes, bytes],
) -> None:
    """The time runs from the first byte, however often another one comes."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_drip, client, *parts)
                await client.read_to_end()
                nursery.cancel_scope.cancel(reason="closed by the server")
            assert 0.2 <= trio.current_time() - began < 10
            assert b" 408 " in client.received

    await serve_while(body, head_read_s=0.3, body_read_s=0.3)


PROGRESS = {
    "HTTP/1.1": (LONG_POST.replace(b": 999", b": 34"), [b"z"] * 30),
    "HTTP/2": (H2_POST, [f.data(1, b"z")] * 29 + [f.data(1, b"z", end=True)]),
}


@pytest.mark.parametrize("name", PROGRESS)
async def test_a_body_that_makes_progress_has_longer(name: str) -> None:
    """Thirty bytes take longer than a body may, and come faster than they must."""
    head, pieces = PROGRESS[name]

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            began = trio.current_time()
            await client.say(head)
            for piece in pieces:
                await trio.sleep(0.02)
                await client.say(piece)
            await client.read_until(
                lambda said: said.endswith(b"z" * 30) or _full(said)
            )
            assert trio.current_time() - began > 0.5
        assert not any(server.hardened.tally.interventions.values())

    await serve_while(body, body_read_s=0.5, body_bytes_per_s=5)


def _full(said: bytes) -> bool:
    return f.body(f.parse(said), 1) == b"z" * 30


async def _drip(client: Client, first: bytes, drop: bytes) -> None:
    await client.say(first)
    while not client.ended:
        await client.say(drop)
        await trio.sleep(0.02)


def _say_while_the_loop_is_held(client: Client, data: bytes) -> None:
    """Let the data and every deadline of a second become due in one scheduler pass."""
    os.write(client.stream.socket.fileno(), data)
    time.sleep(1.01)  # holds the loop: nothing runs that it could wait for


ENDS = (b"ok", b"0\r\n\r\n", b"ended")
LATE: dict[str, tuple[dict[str, Any], bytes, bytes]] = {
    "head": ({"head_read_s": 1.0}, get("/ok")[:9], get("/ok")[9:]),
    "body": ({"body_read_s": 1.0}, POST, b"ended"),
    "idle": ({"keep_alive_s": 1.0}, get("/ok"), get("/ok")),
}


@pytest.mark.parametrize("name", LATE)
async def test_what_comes_with_the_deadline_is_in_time(name: str) -> None:
    """The loop was busy; bytes and deadline are due in one pass: a whole answer."""
    limits, first, rest = LATE[name]

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(first)
            if name == "idle":
                await client.read_until(lambda said: said.endswith(b"ok"))
            await trio.testing.wait_all_tasks_blocked(0.05)
            said = len(client.received)
            _say_while_the_loop_is_held(client, rest)
            await client.read_until(lambda all_said: all_said[said:].endswith(ENDS))
            assert status_of(client.received[said:]) == 200
            assert not any(server.hardened.tally.interventions.values())

    await serve_while(body, **limits)


async def test_a_body_that_comes_with_its_deadline_harms_no_neighbour() -> None:
    """Over HTTP/2 the other streams of the connection go on to their end."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(H2_POST + f.request(3, b"/stream?n=20&every=0.05"))
            await client.frames_until(lambda seen: f.status(seen, 3) == 200)
            _say_while_the_loop_is_held(client, f.data(1, b"all", end=True))
            seen = await client.frames_until(lambda seen: f.ended(seen, 3))
            assert f.body(seen, 3).count(b"data: ") == 20
            assert not any(server.hardened.tally.interventions.values())

    await serve_while(body, body_read_s=1.0)


@pytest.mark.parametrize(
    "data",
    [
        f.hello(),
        f.hello() + f.request(1, b"/ok"),
        f.hello() + f.request(1, b"/stream?n=9&every=1") + f.reset(1),
    ],
    ids=["no request", "a finished request", "a reset request"],
)
async def test_an_idle_h2c_connection_is_closed(data: bytes) -> None:
    """Idleness is counted from the last stream's end, however it ended."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(data)
            await client.read_to_end()
            assert f.Seen("goaway", 0, 0) in f.parse(client.received)

    await serve_while(body, keep_alive_s=0.2)


async def test_a_slow_body_over_http2_ends_its_stream_only() -> None:
    """The overdue stream gets 408, its neighbour goes on to its end."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(H2_POST + f.request(3, b"/stream?n=5&every=0.1"))
            seen = await client.frames_until(lambda seen: f.ended(seen, 3))
            assert f.status(seen, 1) == 408
            assert f.body(seen, 3).count(b"data: ") == 5

    await serve_while(body, body_read_s=0.2)


async def test_credit_by_the_spoonful_has_a_budget() -> None:
    """Each bit of it would cost the server a frame."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            hello = f.hello(INITIAL_WINDOW_SIZE=0)
            await client.say(hello + f.request(1, b"/flood"))
            for given in range(20, 20 * 15, 20):
                await client.say(f.credit(1, 20))
                await client.frames_until(partial(_body_of, given))
            assert f.Seen("goaway", 0, 11) in f.parse(client.received)

    await serve_while(body, h2_control_frames=10)


def _body_of(size: int, seen: list[f.Seen]) -> bool:
    return len(f.body(seen, 1)) == size


async def test_a_connection_too_many_is_refused() -> None:
    """It gets 503 at once; one that ends makes room."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as first:
            await first.say(get("/ok"))
            await first.read_until(lambda data: data.endswith(b"/ok"))
            async with await Client.connect(server.port) as second:
                assert status_of(await second.read_to_end()) == 503
        async with await Client.connect(server.port) as third:
            await third.say(get("/ok", "Connection: close"))
            assert status_of(await third.read_to_end()) in {200, 503}

    await serve_while(body, connections=1)


async def test_a_connection_has_a_last_request() -> None:
    """HTTP/1.1 says `Connection: close` with it, HTTP/2 sends GOAWAY."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/ok") * 3)
            answer = await client.read_to_end()
            assert answer.count(b"HTTP/1.1 200") == 2
            assert answer.lower().count(b"connection: close") == 1
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + b"".join(f.request(n) for n in (1, 3, 5)))
            await client.read_to_end()
            seen = f.parse(client.received)
            assert [f.status(seen, n) for n in (1, 3, 5)] == [200, 200, 0]
            assert f.Seen("reset", 5, 7) in seen

    await serve_while(body, requests_per_connection=2)


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_tls_handshake_has_a_time(data: bytes, tmp_path: Any) -> None:
    """A client that does not finish it, or speaks no TLS, is closed."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(data)
            await client.read_to_end()
        assert server.hardened.tally.interventions["handshake_failed"] == 1

    await serve_while(body, tls_handshake_s=0.2, config=tls_config(tmp_path)[0])


async def test_h1_and_h2_over_tls(tmp_path: Any) -> None:
    """ALPN chooses; a stream is complete over both."""
    config, context = tls_config(tmp_path)

    async def body(server: LocalServer) -> None:
        for protocol in ("http/1.1", "h2"):
            context.set_alpn_protocols([protocol])
            tcp = await trio.open_tcp_stream("127.0.0.1", server.port)
            stream = trio.SSLStream(tcp, context, server_hostname="localhost")
            path = "/stream?n=3&every=0"
            hello = f.hello() + f.request(1, path.encode())
            await stream.send_all(hello if protocol == "h2" else get(path))
            received = b""
            while b"data: 2" not in received:
                received += await stream.receive_some()
            await trio.aclose_forcefully(stream)

    await serve_while(body, config=config)


@pytest.mark.parametrize("offered", [[], ["http/1.1"]], ids=["none", "http1"])
async def test_the_http2_preface_counts_under_alpn_only(
    offered: list[str], tmp_path: Any
) -> None:
    """Over TLS there is no prior knowledge (RFC 9113 3.2): it is a bad request."""
    config, context = tls_config(tmp_path)
    if offered:
        context.set_alpn_protocols(offered)

    async def body(server: LocalServer) -> None:
        tcp = await trio.open_tcp_stream("127.0.0.1", server.port)
        stream = trio.SSLStream(tcp, context, server_hostname="localhost")
        await stream.send_all(f.hello() + f.request(1))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 505")
        await trio.aclose_forcefully(stream)

    await serve_while(body, config=config)

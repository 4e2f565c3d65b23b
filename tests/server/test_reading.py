"""The end of a connection is seen at once, and what is read ahead is bounded."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.descriptors import no_descriptors
from tests.support.server import frames as f
from tests.support.server.client import Client, events_of, get
from tests.support.server.servers import (
    LocalServer,
    local_config,
    serve_while,
    tls_config,
)

SILENT = "/stream?n=2&every=60"


@pytest.mark.parametrize("behind", [b"", get("/ok"), b"\0\0", get("/ok") * 3000])
@pytest.mark.parametrize("how", ["shut", "close", "reset"])
async def test_the_end_of_a_connection_ends_its_exchange(
    behind: bytes, how: str
) -> None:
    """FIN, half-close and RST are told at once, also behind pipelined bytes."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get(SILENT) + behind)
            await client.read_until(lambda data: b"data: 0" in data)
            if how == "shut":
                await client.stream.send_eof()
            elif how == "reset":
                client.reset()
            else:
                client.stream.socket.close()
            with trio.fail_after(10):  # the next event would come after 60 s
                await server.application.gone()
        assert (server.application.told, server.application.stalled) == (1, 0)

    await serve_while(body)


async def test_the_end_is_seen_over_http2_while_nothing_can_be_written() -> None:
    """What answers a frame waits for the client to read, and its end does not."""

    async def body(server: LocalServer) -> None:
        hello = f.hello(INITIAL_WINDOW_SIZE=2**31 - 1) + f.credit(0, 2**31 - 65_536)
        async with await Client.connect(server.port, receive_bytes=4096) as client:
            await client.say(hello + f.request(1, b"/flood"))
            await _wait_until_full(server)
            await client.say(f.frame(0x6, 0, 0, b"12345678"))  # PING
            await client.stream.send_eof()
            with trio.fail_after(10):  # it would be cut off after 15 s
                await server.application.gone()
        assert (server.application.told, server.application.stalled) == (1, 0)

    await serve_while(body)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_the_end_is_seen_over_tls_while_nothing_can_be_written(
    tmp_path: Path, protocol: str
) -> None:
    """No record is read before the client reads, and its end is seen all the same."""
    config, context = tls_config(tmp_path)
    context.set_alpn_protocols([protocol])

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port, receive_bytes=4096) as client:
            tcp = client.stream
            tls = trio.SSLStream(tcp, context, server_hostname="localhost")
            hello = f.hello(INITIAL_WINDOW_SIZE=2**31 - 1)
            hello += f.credit(0, 2**31 - 65_536) + f.request(1, b"/flood")
            await tls.send_all(hello if protocol == "h2" else get("/flood"))
            await _wait_until_full(server)
            # A frame that needs no answer, or what is pipelined.
            more = f.frame(0x2, 0, 1, b"\0\0\0\0\1") if protocol == "h2" else get("/")
            await tls.send_all(more)
            await tcp.send_eof()
            with trio.fail_after(10):
                await server.application.gone()
        assert (server.application.told, server.application.stalled) == (1, 0)

    await serve_while(body, config=config)


async def test_reading_ahead_needs_no_descriptor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A process without any goes on with the stream, and its end is still found."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/stream?n=3&every=0.3"))
            await client.read_until(lambda data: b"data: 0" in data)
            with no_descriptors():
                await client.say(get("/ok") * 3000 + get("/last", "Connection: close"))
                answer = await client.read_until(lambda data: b"data: 2" in data)
            assert events_of(answer) == [b"0", b"1", b"2"]
            assert (await client.read_to_end()).count(b"HTTP/1.1 200") == 3002
        assert server.application.told == 0

    await serve_while(body, requests_per_connection=9999)
    assert "contained a failure" not in caplog.text


async def _wait_until_full(server: LocalServer) -> None:
    """Wait until the kernel takes no more of what `/flood` sends."""
    await server.application.produced(1)
    await trio.testing.wait_all_tasks_blocked(0.1)


async def test_an_exchange_begun_after_the_end_is_told(tmp_path: Path) -> None:
    """The write of "100 Continue" finds the client gone before its exchange begins."""
    path = str(tmp_path / "socket")
    config = local_config()
    config.bind = ["127.0.0.1:0", f"unix:{path}"]

    async def body(server: LocalServer) -> None:
        head = b"POST /flood HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n"
        with socket.socket(socket.AF_UNIX) as client:  # its end is known at once
            client.connect(path)
            client.sendall(head + b"Expect: 100-continue\r\n\r\n")
        await server.application.gone()

    await serve_while(body, config=config)


async def test_a_body_is_asked_for_by_who_wants_it() -> None:
    """`Expect: 100-continue`: who refuses the head alone saves its client the body."""
    length = b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(b"POST /unread HTTP/1.1\r\nHost: t\r\n" + length)
            answer = await client.read_to_end()
            assert answer.startswith(b"HTTP/1.1 413 ")
        async with await Client.connect(server.port) as client:
            await client.say(b"POST /echo HTTP/1.1\r\nHost: t\r\n" + length)
            await client.read_until(lambda data: data.endswith(b"\r\n\r\n"))
            assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.say(b"hi")
            await client.read_until(lambda data: data.endswith(b"hi"))
            assert b"HTTP/1.1 200 OK" in client.received

    await serve_while(body)


async def test_a_body_over_http2_is_asked_for_by_who_wants_it() -> None:
    """The same, with the informational response as HEADERS."""
    expect = ((b"expect", b"more, 100-continue"),)  # a list (RFC 9110 10.1.1)

    def post(stream: int, path: bytes) -> bytes:
        return f.request(stream, path, method=b"POST", extra=expect, end=False)

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + post(1, b"/unread"))
            seen = await client.frames_until(lambda seen: f.ended(seen, 1))
            assert f.status(seen, 1) == 413
            await client.say(post(3, b"/echo"))
            seen = await client.frames_until(lambda seen: bool(f.status(seen, 3)))
            assert f.status(seen, 3) == 100
            await client.say(f.data(3, b"hi", end=True))
            seen = await client.frames_until(lambda seen: f.ended(seen, 3))
            assert f.body(seen, 3) == b"hi"

    await serve_while(body)


async def test_pipelined_requests_are_answered_in_order() -> None:
    """What was read ahead during a stream is served after it."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/stream?n=3&every=0.05"))
            await client.read_until(lambda data: b"data: 0" in data)
            await client.say(get("/second") + get("/third", "Connection: close"))
            answer = await client.read_to_end()
            assert events_of(answer) == [b"0", b"1", b"2"]
            assert answer.index(b"/second") < answer.index(b"/third")
        assert server.application.told == 0  # nobody went before the answer's end

    await serve_while(body)


async def test_reading_ahead_is_bounded() -> None:
    """Past the bound the client's bytes stay in its own socket; then all are served."""
    count = 400

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/stream?n=2&every=0.3"))
            await client.read_until(lambda data: b"data: 0" in data)
            async with trio.open_nursery() as nursery:
                more = get("/ok") * count + get("/last", "Connection: close")
                nursery.start_soon(client.say, more)
                answer = await client.read_to_end()
            assert answer.count(b"HTTP/1.1 200") == count + 2

    await serve_while(body, read_ahead_bytes=2048, requests_per_connection=9999)


async def test_an_early_refusal_leaves_no_task_behind() -> None:
    """A refused upload ends its connection; nobody waits in it for ever."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            post = b"POST /unread?after=0.1 HTTP/1.1\r\nHost: t\r\n"
            await client.say(post + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(30):
                await client.say(b"1000\r\n" + bytes(4096) + b"\r\n")
            assert b"too large" in await client.read_to_end()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert server.hardened.tally.connections_open == 0

    await serve_while(body, body_queue_bytes=8192)


async def test_an_upload_over_http2_waits_for_the_application() -> None:
    """A client gets credit as its body is read, not as it arrives."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            unread = f.request(1, b"/unread?after=0.3", method=b"POST", end=False)
            await client.say(f.hello() + unread + f.data(1, bytes(16_000)) * 4)
            seen = await client.frames_until(lambda seen: f.status(seen, 1) == 413)
            assert not any(one.kind == "credit" for one in seen[:-2])
            await client.say(f.request(3, b"/echo", method=b"POST", end=False))
            await client.say(f.data(3, bytes(16_000), end=True))
            seen = await client.frames_until(lambda seen: f.ended(seen, 3))
            assert len(f.body(seen, 3)) == 16_000

    await serve_while(body)


async def test_a_refused_upload_over_http2_is_dropped_up_to_a_bound() -> None:
    """Late DATA is acknowledged and dropped; past `discard_bytes` it is reset."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            refused = f.request(1, b"/unread", method=b"POST", end=False)
            await client.say(f.hello() + refused)
            await client.frames_until(lambda seen: f.ended(seen, 1))
            for _ in range(8):
                await client.say(f.data(1, bytes(8000)))
            seen = await client.frames_until(lambda seen: f.Seen("reset", 1) in seen)
            assert f.status(seen, 1) == 413
            await client.say(f.request(3, b"/ok"))
            seen = await client.frames_until(lambda seen: f.ended(seen, 3))
            assert f.status(seen, 3) == 200

    await serve_while(body, discard_bytes=20_000)


@pytest.mark.parametrize(
    "rest",
    [
        f.data(1, b"too long"),
        f.data(1, b"x", end=True),
        f.data(1, b"hi") + f.headers(1, ((b":path", b"/"),)),
    ],
    ids=["longer", "shorter", "trailers"],
)
async def test_a_refused_upload_that_is_malformed_is_reset(rest: bytes) -> None:
    """A request that proves malformed behind its whole answer is no good one."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            length = ((b"content-length", b"2"),)
            refused = f.request(1, b"/unread", method=b"POST", extra=length, end=False)
            await client.say(f.hello() + refused)
            await client.frames_until(lambda seen: f.ended(seen, 1))
            await client.say(rest)
            await client.frames_until(lambda seen: f.Seen("reset", 1, 1) in seen)
            await client.say(f.request(3, b"/ok"))
            seen = await client.frames_until(lambda seen: f.ended(seen, 3))
            assert f.Seen("reset", 1, 1) in seen
            assert f.status(seen, 3) == 200

    with trio.fail_after(5):
        await serve_while(body)

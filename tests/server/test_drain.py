"""A drain tells every client in the words of its protocol, and ends by itself."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.server import frames as f
from tests.support.server import servers
from tests.support.server.client import Client, events_of, get, status_of
from tests.support.server.servers import LocalServer, tls_config

# Long enough for what is live to end by itself.
serve_while = partial(servers.serve_while, drain_s=5)


async def test_open_connections_get_503_and_close() -> None:
    """During the drain an open connection's next request is its last."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/ok"))
            await client.read_until(lambda data: data.endswith(b"/ok"))
            client.received = b""
            async with await Client.connect(server.port) as live:
                await live.say(get("/stream?n=5&every=0.1"))
                await live.read_until(lambda data: b"data: 0" in data)
                server.stop.set()
                await server.draining()
                await client.say(get("/ok"))
                answer = await client.read_to_end()
                assert status_of(answer) == 503
                assert b"connection: close" in answer.lower()
                assert len(events_of(await live.read_to_end())) == 5

    await serve_while(body)


async def test_new_connections_are_refused() -> None:
    """Nobody queues where nobody will look."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as live:
            await live.say(get("/stream?n=5&every=0.1"))
            await live.read_until(lambda data: b"data: 0" in data)
            server.stop.set()
            await server.draining()
            refused = False
            try:
                async with await Client.connect(server.port) as late:
                    refused = not await late.read_to_end()
            except ConnectionRefusedError:
                refused = True
            assert refused
            assert len(events_of(await live.read_to_end())) == 5

    await serve_while(body)


async def test_who_does_not_read_is_not_waited_for() -> None:
    """The last words' time is for those who take them; here nobody does."""

    async def body(server: LocalServer) -> None:
        stalled = await Client.connect(server.port, receive_bytes=4096)
        await stalled.say(get("/flood"))
        await stalled.read_until(lambda data: b"200" in data)
        async with stalled, await Client.connect(server.port) as live:
            await live.say(get("/stream?n=2&every=60"))
            await live.read_until(lambda data: b"data: 0" in data)
            server.stop.set()
            assert events_of(await live.read_to_end()) == [b"0", b"shutting_down"]
            await server.application.gone()

    await serve_while(
        body, drain_s=0.1, terminal_events_s=60, terminal_events_stall_s=0.3
    )


async def test_who_reads_slowly_has_all_of_the_terminal_events() -> None:
    """As long as bytes are acknowledged, the time for the last words is not cut."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port, receive_bytes=4096) as client:
            await client.say(get("/flood"))
            await client.read_until(lambda data: b"200" in data)
            server.stop.set()
            await server.application.ending.wait()
            began = trio.current_time()
            with suppress(trio.BrokenResourceError):  # the reset at the end
                while True:
                    assert await client.stream.receive_some(8192)
                    await trio.sleep(0.05)
            assert trio.current_time() - began > 0.9

    await serve_while(
        body, drain_s=0.1, terminal_events_s=1, terminal_events_stall_s=0.8
    )


async def test_who_reads_slowly_has_the_end_of_an_answer() -> None:
    """Its last stream is over, and what it has not read lies in the kernel.

    It gives credit as it reads: to a socket that is closed that means a reset, and the
    kernel lets go of what is not read yet.
    """
    size = 100_000
    windows = f.hello(INITIAL_WINDOW_SIZE=2**20) + f.credit(0, 2**20)

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port, receive_bytes=4096) as client:
            await client.say(windows + f.request(1, b"/flood?most=%d" % size))
            await client.read_until(lambda data: len(data) > 1000)
            server.stop.set()
            while not f.ended(f.parse(client.received), 1):
                await client.stream.send_all(f.credit(1, 1))
                client.received += await client.stream.receive_some(2000)
                await trio.sleep(0.01)  # it reads slowly
            assert len(f.body(f.parse(client.received), 1)) >= size

    await serve_while(
        body, linger_s=10, terminal_events_s=10, terminal_events_stall_s=2
    )


async def test_who_is_slow_has_the_end_when_the_server_is_gone(
    tmp_path: Path,
) -> None:
    """The kernel has all of it by then, for clients with TLS and without."""
    serve = partial(
        serve_while, drain_s=0.1, terminal_events_s=0.5, terminal_events_stall_s=0.2
    )
    config, trusting = tls_config(tmp_path)
    clients: list[trio.abc.Stream] = []

    async def connected(server: LocalServer) -> trio.SocketStream:
        client = await Client.connect(server.port, receive_bytes=4096)
        return client.stream

    async def plain(server: LocalServer) -> None:
        stream = await connected(server)
        await stream.send_all(get("/told"))
        clients.append(stream)
        await server.application.produced(1)

    async def secure(server: LocalServer) -> None:
        stream = trio.SSLStream(
            await connected(server), trusting, server_hostname="localhost"
        )
        await stream.send_all(get("/told"))
        clients.append(stream)
        await server.application.produced(1)

    with trio.fail_after(60):
        await serve(plain)
        await serve(secure, config=config)
        for client in clients:
            last = b""
            while not last.endswith(b"the end\r\n0\r\n\r\n"):
                data = await client.receive_some(8192)
                assert data, "the connection ended before the answer"
                last = last[-100:] + data
            await trio.aclose_forcefully(client)


@pytest.mark.parametrize("sends_on", [True, False])
async def test_a_request_that_comes_too_late_is_answered(sends_on: bool) -> None:
    """Its body is still on its way when the drain is over: 503, not a reset."""

    async def body(server: LocalServer) -> None:
        length = "Content-Length: 9000"
        async with await Client.connect(server.port) as client:
            await client.say(get("/echo", length) + b"x")
            await trio.testing.wait_all_tasks_blocked(0.1)
            server.stop.set()
            async with trio.open_nursery() as nursery:

                async def send_on() -> None:
                    while not client.ended:
                        await client.say(b"x")
                        await trio.sleep(0.01)

                if sends_on:
                    nursery.start_soon(send_on)
                answer = await client.read_to_end()
            assert status_of(answer) == 503
            assert b"connection: close" in answer

    await serve_while(body, drain_s=0.2)


async def test_a_request_over_http2_that_comes_too_late_is_answered() -> None:
    """Its neighbour, which is complete, says its last words."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + f.request(1, b"/echo", end=False))
            await client.say(f.data(1, b"x") + f.request(3, b"/stream?n=2&every=60"))
            await client.frames_until(lambda seen: b"data: 0" in f.body(seen, 3))
            server.stop.set()
            await client.read_to_end()
            seen = f.parse(client.received)
            assert f.status(seen, 1) == 503
            assert f.ended(seen, 1)
            assert f.body(seen, 3).endswith(b"data: shutting_down\n\n")
        assert "bad_request" not in server.hardened.tally.interventions

    await serve_while(body, drain_s=0.2)


async def test_a_drain_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Its records have their events' names, for the JSON log."""
    caplog.set_level("INFO", "trio_ai_stream.server")

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as live:
            await live.say(get("/stream?n=2&every=60"))
            await live.read_until(lambda data: b"data: 0" in data)
            server.stop.set()
            await live.read_to_end()

    await serve_while(body, drain_s=0.1)
    events = [vars(record).get("event") for record in caplog.records]
    assert events == ["drain_began", "drain_over"]


async def test_http2_gets_goaway_at_once_and_live_streams_go_on() -> None:
    """A stream opened after the GOAWAY is refused, which makes it safe to try again."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + f.request(1, b"/stream?n=5&every=0.1"))
            await client.frames_until(lambda seen: b"data: 0" in f.body(seen, 1))
            server.stop.set()
            seen = await client.frames_until(lambda s: f.Seen("goaway", 0) in s)
            assert b"data: 4" not in f.body(seen, 1)
            await client.say(f.request(3))
            await client.read_to_end()
            seen = f.parse(client.received)
            assert f.Seen("reset", 3, 7) in seen
            assert f.body(seen, 1).count(b"data: ") == 5

    await serve_while(body)


@pytest.mark.parametrize(
    ("request_", "more"),
    [
        (f.hello() + f.request(1, b"/stream?n=3&every=0.1"), f.credit(0, 1)),
        (get("/stream?n=3&every=0.1"), get("/ok")),
    ],
    ids=["h2", "http1"],
)
async def test_the_drain_does_not_reset_who_still_sends(
    request_: bytes, more: bytes
) -> None:
    """A reset could take the last event from a client that has not read it yet.

    The last stream ends, and its client goes on to give credit, as browsers do, or to
    ask for more.
    """

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(request_)
            await client.read_until(lambda data: b"data: 0" in data)
            server.stop.set()
            answer = await client.read_to_end()  # the server's FIN
            assert answer.count(b"data: ") == 3
            for _ in range(3):  # a closed socket would answer the first by a reset
                await client.stream.send_all(more)

    await serve_while(body, linger_s=5, app_shutdown_s=10)


async def test_the_drain_ends_with_its_last_exchange() -> None:
    """An idle connection and one that has said nothing do not hold it."""

    async def body(server: LocalServer) -> None:
        async with (
            await Client.connect(server.port) as idle,
            await Client.connect(server.port) as mute,
            await Client.connect(server.port) as live,
        ):
            await idle.say(get("/ok"))
            await idle.read_until(lambda data: data.endswith(b"/ok"))
            await live.say(get("/stream?n=3&every=0.1"))
            await live.read_until(lambda data: b"data: 0" in data)
            began = trio.current_time()
            server.stop.set()
            await live.read_to_end()
            await idle.read_to_end()
            await mute.read_to_end()
            assert trio.current_time() - began < 10

    await serve_while(body, drain_s=60)


async def test_the_drain_ends_whatever_clients_do() -> None:
    """A silent stream says its last words; one that can't be told is cut."""

    async def body(server: LocalServer) -> None:
        async with (
            await Client.connect(server.port) as silent,
            await Client.connect(server.port, receive_bytes=4096) as stalled,
        ):
            await silent.say(get("/stream?n=2&every=60"))
            await stalled.say(get("/flood"))
            await silent.read_until(lambda data: b"data: 0" in data)
            await stalled.read_until(lambda data: b"200" in data)
            began = trio.current_time()
            server.stop.set()
            answer = await silent.read_to_end()
            assert events_of(answer) == [b"0", b"shutting_down"]
            assert answer.endswith(b"0\r\n\r\n")
            await server.application.cut_off()  # its client is still there
            assert trio.current_time() - began < 10

    await serve_while(body, drain_s=0.3)

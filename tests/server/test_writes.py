"""Writes wait for the client only so long, and never leave half a message behind."""

from __future__ import annotations

import pytest
import trio

from tests.support.server import frames as f
from tests.support.server.application import BLOCK
from tests.support.server.client import Client, get
from tests.support.server.servers import LocalServer, serve_while

CLOSED_WINDOW = f.hello(INITIAL_WINDOW_SIZE=0)


async def test_a_client_that_stops_reading_is_cut_off() -> None:
    """After `write_stall_s` the connection is reset and its exchange marked stalled."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port, receive_bytes=4096) as client:
            await client.say(get("/flood"))
            await server.application.gone()
            assert server.application.stalled == 1
            assert server.hardened.tally.interventions["write_stall"] == 1
            assert server.application.produced_bytes < 4_000_000

    await serve_while(body, write_stall_s=0.3)


async def test_a_client_that_reads_slowly_is_not_cut_off() -> None:
    """What counts is progress: any byte acknowledged starts the time again."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port, receive_bytes=4096) as client:
            await client.say(get("/flood"))
            with trio.move_on_after(2.5):
                while True:
                    await client.stream.receive_some(8192)
                    await trio.sleep(0.05)
            assert server.application.disconnected == 0

    await serve_while(body, write_stall_s=1)


@pytest.mark.parametrize(
    ("window", "pieces"),
    [(65_535, [(5, True)]), (3, [(3, False), (2, True)]), (5, [(5, True)])],
)
async def test_the_last_part_and_the_end_are_one_frame(
    window: int, pieces: list[tuple[int, bool]]
) -> None:
    """A client that resets the stream after the last bytes has had the end, too."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            hello = f.hello(INITIAL_WINDOW_SIZE=window)
            await client.say(hello + f.request(1, b"/hello"))
            await client.frames_until(lambda seen: len(f.body(seen, 1)) == pieces[0][0])
            await client.say(f.credit(1, 5))
            seen = await client.frames_until(lambda seen: f.ended(seen, 1))
            found = [(one.value, one.ended) for one in seen if one.kind == "data"]
            assert found == pieces

    with trio.fail_after(10):
        await serve_while(body)


async def test_a_closed_window_holds_one_message() -> None:
    """Backpressure reaches the application: what it has sent is what was taken."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            streams = range(1, 41, 2)
            requests = b"".join(f.request(n, b"/flood") for n in streams)
            await client.say(CLOSED_WINDOW + requests)
            await client.frames_until(lambda seen: f.status(seen, 39) == 200)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert server.application.produced_bytes == 0
            await client.say(f.credit(1, len(BLOCK)) + f.credit(0, len(BLOCK)))
            await server.application.produced(len(BLOCK))
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert server.application.produced_bytes == len(BLOCK)

    await serve_while(body, write_stall_s=9)


async def test_a_closed_window_ends_its_stream_not_its_neighbour() -> None:
    """The stalled stream is reset; one whose window is open goes on to its end."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(CLOSED_WINDOW + f.request(1, b"/flood"))
            await client.say(f.request(3, b"/stream?n=6&every=0.1") + f.credit(3, 999))
            seen = await client.frames_until(lambda seen: f.ended(seen, 3))
            assert f.Seen("reset", 1, 8) in seen
            assert f.body(seen, 3).count(b"data: ") == 6
        await server.application.gone()
        assert server.application.stalled == 1

    await serve_while(body, write_stall_s=0.3)


@pytest.mark.parametrize(
    ("path", "code"),
    [(b"/given-up", 8), (b"/boom-midway", 2)],
    ids=["given up", "failed"],
)
async def test_a_reset_says_whose_doing_it_was(path: bytes, code: int) -> None:
    """CANCEL if the client took nothing, INTERNAL_ERROR if the application failed."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(CLOSED_WINDOW + f.request(1, path) + f.credit(1, 99))
            seen = await client.frames_until(lambda seen: f.ended(seen, 1))
            assert f.Seen("reset", 1, code) in seen

    await serve_while(body, write_stall_s=9)


async def test_connection_credit_alone_buys_no_time() -> None:
    """A stream that may not send is stalled, however often other credit comes."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(CLOSED_WINDOW + f.request(1, b"/flood"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_give, client)
                seen = await client.frames_until(lambda seen: f.ended(seen, 1))
                nursery.cancel_scope.cancel(reason="reset")
            assert f.Seen("reset", 1, 8) in seen

    await serve_while(body, write_stall_s=0.3)


async def _give(client: Client) -> None:
    while True:
        await client.say(f.credit(0, 1))
        await trio.sleep(0.05)


async def test_an_http2_client_that_stops_reading_is_cut_off() -> None:
    """With windows wide open it is the socket that stalls, and all streams with it."""

    async def body(server: LocalServer) -> None:
        hello = f.hello(INITIAL_WINDOW_SIZE=2**31 - 1) + f.credit(0, 2**31 - 65_536)
        async with await Client.connect(server.port, receive_bytes=4096) as client:
            await client.say(hello + f.request(1, b"/flood") + f.request(3, b"/flood"))
            await server.application.gone(2)
            assert server.application.stalled == 2
            assert server.application.produced_bytes < 4_000_000

    await serve_while(body, write_stall_s=0.3)


async def test_a_cancelled_send_leaves_no_torn_message_over_http1() -> None:
    """A write that is cancelled while the client is slow is completed by the next."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port, receive_bytes=65_536) as client:
            await client.say(get("/torn"))
            await server.application.tore()
            answer = await client.read_until(lambda data: data.endswith(b"0\r\n\r\n"))
            *blocks, end, nothing = _chunks(answer.partition(b"\r\n\r\n")[2])
            assert (set(blocks), end, nothing) == ({len(BLOCK)}, len(b"the end"), 0)

    await serve_while(body, write_stall_s=3)


async def test_a_cancelled_send_leaves_no_torn_message_over_http2() -> None:
    """What the window did not let out is sent in front of the next message."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(f.hello(INITIAL_WINDOW_SIZE=1000))
            await client.say(f.request(1, b"/torn"))
            await server.application.tore()
            await client.say(f.credit(1, 10_000_000) + f.credit(0, 10_000_000))
            seen = await client.frames_until(lambda s: b"the end" in f.body(s, 1))
            blocks, rest = divmod(len(f.body(seen, 1)), len(BLOCK))
            assert (blocks, rest) == (1, len(b"the end"))

    await serve_while(body, write_stall_s=3)


async def test_a_cancelled_head_is_out_all_the_same() -> None:
    """A cancel that meets the head cuts nothing off: the response has its end."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/cut-head"))
            answer = await client.read_until(lambda data: data.endswith(b"0\r\n\r\n"))
            assert answer.startswith(b"HTTP/1.1 200")
            assert _chunks(answer.partition(b"\r\n\r\n")[2]) == [len(b"the end"), 0]
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + f.request(1, b"/cut-head"))
            seen = await client.frames_until(lambda seen: f.ended(seen, 1))
            assert (f.status(seen, 1), f.body(seen, 1)) == (200, b"the end")
            assert not [frame for frame in seen if frame.kind == "reset"]
        assert not server.hardened.tally.interventions

    await serve_while(body)


async def test_a_head_that_waits_leaves_with_what_comes_next() -> None:
    """With the first piece of the body, in one packet, or with the end."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/joined"))
            answer = await client.read_until(lambda data: data.endswith(b"0\r\n\r\n"))
            assert _chunks(answer.partition(b"\r\n\r\n")[2]) == [0]
        async with await Client.connect(server.port) as client:
            await client.say(get("/joined?piece=first"))
            packet = await client.read_until(bool)
            assert packet.startswith(b"HTTP/1.1 200")
            assert packet.endswith(b"5\r\nfirst\r\n")
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + f.request(1, b"/joined?piece=first"))
            await client.frames_until(lambda seen: f.body(seen, 1) == b"first")
            server.application.ending.set()
            seen = await client.frames_until(lambda seen: f.ended(seen, 1))
            assert f.status(seen, 1) == 200
        assert not server.hardened.tally.interventions

    await serve_while(body)


async def test_a_head_that_waits_does_not_wait_for_credit() -> None:
    """Only the body is under flow control (RFC 9113 5.2.1): the head goes out alone."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(CLOSED_WINDOW + f.request(1, b"/joined?piece=first"))
            seen = await client.frames_until(lambda seen: f.status(seen, 1) == 200)
            assert f.body(seen, 1) == b""
            await client.say(f.credit(1, 99))
            await client.frames_until(lambda seen: f.body(seen, 1) == b"first")

    await serve_while(body, write_stall_s=3)


def _chunks(body: bytes) -> list[int]:
    """Return the sizes of the chunks in a complete chunked body."""
    sizes = []
    while body:
        size, _, body = body.partition(b"\r\n")
        sizes.append(int(size, 16))
        body = body[sizes[-1] + 2 :]
    return sizes

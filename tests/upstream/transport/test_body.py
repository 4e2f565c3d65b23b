"""The body: blocks, draining, aborting, fairness and bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio.testing

from tests.upstream.transport.servers import (
    CHUNKED,
    OK,
    Handler,
    Peer,
    answering,
    begin,
    both,
    client_of,
    forever,
    in_memory,
    serving,
)
from trio_ai_stream.upstream.transport import TransportBody, UpstreamTransport

URL = "http://host/"


@asynccontextmanager
async def reading(
    handler: Handler,
) -> AsyncIterator[tuple[TransportBody, UpstreamTransport]]:
    """Yield the body of an answer that comes over memory streams, and its transport."""
    async with (
        in_memory(handler) as (client, transport),
        client.stream("GET", URL) as response,
    ):
        yield response.extensions["body"], transport


async def test_a_block_is_all_that_has_arrived() -> None:
    """Events that arrived together come as one block; one that is alone comes alone."""
    more = trio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"1\r\na\r\n1\r\nb\r\n")
        await more.wait()
        await peer.send(b"1\r\nc\r\n")
        await trio.sleep_forever()

    async with reading(handle) as (body, _):
        assert await body.receive() == b"ab"
        more.set()
        assert await body.receive() == b"c"


async def test_a_split_chunk_never_gives_an_empty_block() -> None:
    """Bytes of framing alone are no block: receive waits for more."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        for byte in CHUNKED + b"2;ext=1\r\nab\r\n0\r\nX: y\r\n\r\n":
            await peer.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()

    async with reading(handle) as (body, _):
        assert [await body.receive() for _ in range(4)] == [b"a", b"b", b"", b""]
        assert body.trailers == [(b"X", b"y")]


@pytest.mark.parametrize("apart", [True, False])
async def test_what_came_before_a_mistake_is_delivered(apart: bool) -> None:
    """A good chunk and a bad one in one read: the good one, and then the failure."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        if apart:
            await peer.send(CHUNKED)
            await trio.testing.wait_all_tasks_blocked()
        await peer.send((b"" if apart else CHUNKED) + b"2\r\nab\r\nnonsense\r\n")
        await trio.sleep_forever()

    with trio.fail_after(30):
        async with reading(handle) as (body, transport):
            assert await body.receive() == b"ab"
            assert transport.statistics().live == 0
            for _ in range(2):
                with pytest.raises(httpx.RemoteProtocolError):
                    await body.receive()
            assert not body.ended


@both
async def test_blocks_are_bounded_and_nothing_is_read_ahead(tls: bool) -> None:
    """A block is at most 16 KiB; the rest waits in the kernel and then upstream."""
    sent = 0

    async def firehose(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(bytes(65_536))
            sent += 65_536

    with trio.fail_after(20):
        async with (
            serving(firehose, tls=tls) as server,
            client_of() as (client, _),
            client.stream("GET", server.url) as response,
        ):
            body = response.extensions["body"]
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert sent < 16_000_000  # the kernel's buffers, no more
            blocks = [await body.receive() for _ in range(500)]
            assert max(map(len, blocks)) <= 16_384
            assert sum(map(len, blocks)) > 1_000_000


@both
async def test_a_firehose_lets_other_tasks_run(tls: bool) -> None:
    """Every block has a schedule point, so one stream cannot starve the others."""
    ticks = 0

    async def firehose(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(bytes(1_000_000))

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.lowlevel.checkpoint()
            ticks += 1

    with trio.fail_after(20):
        async with (
            serving(firehose, tls=tls) as server,
            client_of() as (client, _),
            client.stream("GET", server.url) as response,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(tick)
            await trio.lowlevel.checkpoint()
            before = ticks
            for _ in range(200):
                await response.extensions["body"].receive()
            assert ticks - before >= 198  # the first block came with the head
            nursery.cancel_scope.cancel(reason="seen enough")


async def test_receive_lets_others_run_unless_it_has_just_waited() -> None:
    """A block that came with the head is there at once; after it, each call yields."""
    answer = CHUNKED + b"1\r\na\r\n0\r\n\r\n"
    async with reading(answering(answer)) as (body, _):
        assert await body.receive() == b"a"
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                assert await body.receive() == b""


async def test_receive_is_always_a_cancel_point() -> None:
    """A cancelled task gets no block, though there is one; its connection is closed."""
    async with reading(answering(CHUNKED + b"1\r\na\r\n")) as (body, transport):
        with trio.CancelScope() as scope:
            scope.cancel(reason="test")
            await body.receive()
        assert scope.cancelled_caught
        assert transport.statistics().live == 0


async def test_drain_tells_whether_the_connection_is_kept() -> None:
    """True when the next request may use it, False when the response ended it."""
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    for answer, kept in ((OK, True), (closing, False)):
        async with reading(forever(answer)) as (body, _):
            assert await body.drain() is kept
            assert await body.drain() is kept
            assert await body.receive() == b""


async def test_abort_closes_at_once_and_is_idempotent() -> None:
    """The socket is closed before abort returns; afterwards the body says so."""
    with trio.fail_after(30):
        async with serving(begin) as server, client_of() as (client, transport):
            async with client.stream("GET", server.url) as response:
                body = response.extensions["body"]
                body.abort()
                body.abort()
                assert transport.statistics().live == 0
                assert transport.statistics().aborts == 1
                with pytest.raises(httpx.StreamClosed):
                    await body.receive()
                assert await body.drain() is False
            await server.wait_open(0)


async def test_abort_after_the_end_keeps_the_connection() -> None:
    """What has ended cannot be aborted: the connection stays in the pool."""
    async with reading(forever(OK)) as (body, transport):
        await body.drain()
        body.abort()
        assert transport.statistics().idle == 1


@both
async def test_abort_from_another_task_wakes_the_reader(tls: bool) -> None:
    """Whoever waits in receive is told with a ReadError, at once."""
    with trio.fail_after(30):
        async with (
            serving(begin, tls=tls) as server,
            client_of() as (client, _),
            client.stream("GET", server.url) as response,
            trio.open_nursery() as nursery,
        ):
            body = response.extensions["body"]

            async def read() -> None:
                with pytest.raises(httpx.ReadError):
                    await body.receive()
                nursery.cancel_scope.cancel(reason="told")

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            body.abort()


async def test_a_cancelled_receive_closes_before_it_leaves() -> None:
    """When Cancelled comes out of receive, the socket is closed already."""
    with trio.fail_after(30):
        async with (
            serving(begin) as server,
            client_of() as (client, transport),
            client.stream("GET", server.url) as response,
        ):
            body = response.extensions["body"]
            with trio.move_on_after(0.01):
                await body.receive()
            assert repr(body) == "<TransportBody aborted>"
            assert transport.statistics().live == 0
            await server.wait_open(0)


async def test_the_ordinary_httpx_api_works_on_the_same_response() -> None:
    """aiter_raw, aiter_bytes, aiter_lines and aread see the body as usual."""
    answer = CHUNKED + b"4\r\na\nb\n\r\n2\r\nc\n\r\n0\r\n\r\n"
    async with in_memory(forever(answer)) as (client, _):
        async with client.stream("GET", URL) as response:
            assert b"".join([raw async for raw in response.aiter_raw()]) == b"a\nb\nc\n"
        async with client.stream("GET", URL) as response:
            assert [line async for line in response.aiter_lines()] == ["a", "b", "c"]
        async with client.stream("GET", URL) as response:
            assert await response.aread() == b"a\nb\nc\n"
            assert response.is_closed

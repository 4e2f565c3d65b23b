"""Cancelling at any point closes the socket at once and leaves nothing behind."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import AsyncGenerator, Iterator

import httpx
import pytest
import trio
import trio.testing

from tests.upstream.transport.servers import (
    CHUNKED,
    OK,
    Boundary,
    Peer,
    both,
    client_of,
    in_memory,
    serving,
    unanswering,
)
from trio_ai_stream.upstream.transport.http1_messages import ResponseParser
from trio_ai_stream.upstream.transport.links import TlsLink
from trio_ai_stream.upstream.transport.pool import UpstreamConnection
from trio_ai_stream.upstream.transport.upstream_transport import TransportBody


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Run without the garbage collector, so that what waits for it shows as a leak."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def open_files() -> int:
    """How many file descriptors this process holds."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.usefixtures("without_collector")
@both
async def test_a_thousand_random_cancels_leave_nothing(tls: bool) -> None:
    """1000 cancels, 20 at once: no socket, slot or task is left, and all goes on."""
    rng = random.Random(20)

    async def moody(peer: Peer) -> None:
        while await peer.request():
            await trio.sleep(rng.random() * 0.01)
            await peer.send(CHUNKED + b"1\r\na\r\n")
            await trio.sleep(rng.random() * 0.01)
            await peer.send(b"1\r\nb\r\n0\r\n\r\n")

    with trio.fail_after(50):
        async with (
            serving(moody, tls=tls) as server,
            client_of() as (client, transport),
        ):

            async def cancel_often(times: int) -> None:
                for _ in range(times):
                    with trio.move_on_after(rng.random() * 0.03):
                        await client.post(server.url, content=b"x" * 1_000)

            files = open_files()
            tasks = trio.lowlevel.current_statistics().tasks_living
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(cancel_often, 50)
            idle = transport.statistics().idle
            assert (transport.statistics().live, transport.statistics().connecting) == (
                0,
                0,
            )
            await server.wait_open(idle)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert open_files() == files + 2 * idle
            assert trio.lowlevel.current_statistics().tasks_living == tasks + idle
            for _ in range(10):
                assert (await client.get(server.url)).text == "ab"


async def parts() -> AsyncGenerator[bytes, None]:
    """A body that is sent in two parts."""
    for part in (b"one", b"two"):
        await trio.lowlevel.checkpoint()
        yield part


async def in_pieces(peer: Peer) -> None:
    """Answer each request in pieces, so that each has its own boundary."""
    while await peer.request():
        for piece in (
            b"HTTP/1.1 200 OK\r\n",
            CHUNKED[17:],
            b"1\r\na\r\n",
            b"0\r\n\r\n",
        ):
            await peer.send(piece)
            await trio.lowlevel.checkpoint()


async def visit(client: httpx.AsyncClient, kind: str) -> None:
    """One request of the sweep, over the blocks or over httpx's own API."""
    if kind == "blocks":
        async with client.stream("POST", "http://host/", content=b"x") as response:
            assert await response.extensions["body"].drain()
    else:
        body = parts()
        try:
            await client.post("http://host/", content=body)
        finally:
            await body.aclose()


@pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
@pytest.mark.parametrize("kind", ["blocks", "streamed"])
async def test_a_cancel_after_any_step_leaves_nothing(
    autojump_clock: trio.testing.MockClock, kind: str, reused: bool
) -> None:
    """A sweep over every scheduling boundary: cancelled there, nothing is left live."""
    finished = False
    k = 0
    while not finished:
        k += 1
        async with in_memory(in_pieces) as (client, transport):
            if reused:
                await visit(client, "blocks")
            with trio.CancelScope() as scope:
                boundary = Boundary(scope, k)
                trio.lowlevel.add_instrument(boundary)
                try:
                    await visit(client, kind)
                    finished = not scope.cancel_called
                finally:
                    trio.lowlevel.remove_instrument(boundary)
            left = transport.statistics()
            assert (left.live, left.connecting) == (0, 0), f"after step {k}"
            await visit(client, kind)
            assert transport.statistics().live == 0, f"after step {k}"
    assert k > 10


@both
@pytest.mark.parametrize("phase", ["handshake or head", "body", "writing"])
async def test_the_server_sees_the_end_at_once(tls: bool, phase: str) -> None:
    """Cancelled in the handshake, head, body or writing: the socket is closed."""
    parked = trio.Event()

    async def silent(peer: Peer) -> None:
        parked.set()
        await peer.more()
        if phase == "body":
            await peer.send(CHUNKED + b"1\r\na\r\n")
        if phase == "writing":
            await trio.testing.wait_all_tasks_blocked(0.02)
        while await peer.more():
            peer.buffer = b""

    # In the handshake phase a server without TLS never answers our hello.
    handshake = phase == "handshake or head"
    with trio.fail_after(10):
        async with (
            serving(silent, tls=tls and not handshake) as server,
            client_of() as (client, transport),
        ):
            url = server.url.replace("http:", "https:") if tls else server.url
            content = bytes(20_000_000) if phase == "writing" else b""
            async with trio.open_nursery() as nursery:

                async def post() -> None:
                    await client.post(url, content=content)

                nursery.start_soon(post)
                await parked.wait()
                await trio.testing.wait_all_tasks_blocked(0.01)
                files = open_files()
                nursery.cancel_scope.cancel(reason="parked")
            assert open_files() < files
            assert transport.statistics().live == 0
            await server.wait_open(0)


async def test_cancelling_a_tcp_connect_closes_every_attempt() -> None:
    """A dial to addresses that never answer leaves no socket when cancelled."""
    with trio.fail_after(10):
        async with unanswering() as port, client_of() as (client, transport):
            files = open_files()
            with trio.move_on_after(0.1) as scope:
                await client.get(f"http://127.0.0.2:{port}/")
            assert scope.cancelled_caught
            assert open_files() == files
            assert transport.statistics().connecting == 0


def alive(*kinds: type) -> int:
    """How many objects of these classes exist, garbage included."""
    return sum(isinstance(item, kinds) for item in gc.get_objects())


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("ends", [True, False], ids=["read", "aborted"])
async def test_a_request_leaves_no_cycle_of_ours(ends: bool) -> None:
    """Memory goes back without the garbage collector, whether read or aborted."""

    async def handle(peer: Peer) -> None:
        while await peer.request():
            await peer.send(OK if ends else OK[:-1])

    before = alive(TransportBody, UpstreamConnection, ResponseParser)
    async with in_memory(handle) as (_, transport):
        for content in (b"at hand", b"large" * 20_000):
            request = httpx.Request("POST", "http://host/", content=content)
            response = await transport.handle_async_request(request)
            body = response.extensions["body"]
            await body.receive()
            body.abort()
            del response, body, request
        await transport.aclose()
        assert alive(TransportBody, UpstreamConnection, ResponseParser) == before


@pytest.mark.usefixtures("without_collector")
async def test_an_aborted_tls_connection_is_freed_though_httpx_holds_on() -> None:
    """httpx's response keeps our body alive in a cycle, but not the TLS state."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"1\r\na\r\n")
        await peer.more()

    before = alive(TlsLink)
    with trio.fail_after(10):
        async with serving(handle, tls=True) as server, client_of() as (client, _):
            async with client.stream("GET", server.url):
                assert alive(TlsLink) == before + 1
            assert alive(TlsLink) == before

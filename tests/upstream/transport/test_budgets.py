"""Budgets: httpx's connect, write and read timeouts, on Trio's clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx
import pytest
import trio
import trio.testing

from tests.upstream.transport.servers import (
    CHUNKED,
    OK,
    Handler,
    Peer,
    in_memory,
    serving,
)
from trio_ai_stream.upstream.transport import UpstreamTransport

URL = "http://host/"


def pausing(*steps: bytes | float) -> Handler:
    """Answer each request by sending the bytes and sleeping the numbers."""

    async def handle(peer: Peer) -> None:
        while await peer.request():
            for step in steps:
                if isinstance(step, bytes):
                    await peer.send(step)
                else:
                    await trio.sleep(step)

    return handle


async def test_a_dial_beyond_its_budget_is_a_connect_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The connect budget covers name, TCP and TLS together, to the second."""

    async def connect(host: str, port: int, tls: bool) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    transport = UpstreamTransport(connect=connect)
    async with httpx.AsyncClient(transport=transport) as client:
        started = trio.current_time()
        with pytest.raises(httpx.ConnectTimeout):
            await client.get(URL, timeout=httpx.Timeout(None, connect=3))
        assert trio.current_time() - started == pytest.approx(3)
    assert transport.statistics().connect_failures == 1
    assert transport.statistics().connecting == 0


@pytest.mark.parametrize(
    "steps",
    [
        (5.5,),
        (4.0, b"HTTP/1.1 200 OK\r\n", 5.5),
        (CHUNKED, 4.0, b"1\r\na\r\n", 5.5),
        (CHUNKED, 4.0, b"1\r\n", 4.0, b"a\r\n", 5.5),
    ],
    ids=["head", "within the head", "body", "within a chunk"],
)
async def test_silence_beyond_the_budget_is_a_read_timeout(
    autojump_clock: trio.testing.MockClock, steps: tuple[bytes | float, ...]
) -> None:
    """Each silence counts for itself, in the head and in the body."""
    pauses = [step for step in steps if isinstance(step, float)]
    async with in_memory(pausing(*steps, 99.0)) as (client, transport):
        started = trio.current_time()
        with pytest.raises(httpx.ReadTimeout):
            await client.get(URL, timeout=httpx.Timeout(None, read=5))
        passed = trio.current_time() - started
        assert passed == pytest.approx(sum(pauses[:-1]) + 5)
        assert (transport.statistics().idle, transport.statistics().live) == (0, 0)


async def test_bytes_within_the_budget_keep_a_response_alive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A slow response is not a silent one: there is no budget on the whole."""
    steps = (4.0, CHUNKED, *(4.0, b"1\r\na\r\n") * 20, 4.0, b"0\r\n\r\n")
    async with in_memory(pausing(*steps)) as (client, _):
        response = await client.get(URL, timeout=httpx.Timeout(None, read=5))
        assert response.content == b"a" * 20


async def test_no_budget_waits_as_long_as_it_takes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """None means no budget: the caller's own scopes are the only bound."""
    async with in_memory(pausing(9_000.0, CHUNKED, 9_000.0, b"0\r\n\r\n")) as (
        client,
        _,
    ):
        assert (await client.get(URL, timeout=None)).content == b""
        assert trio.current_time() >= 18_000


async def test_the_read_budget_starts_when_the_request_is_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A body that takes long to come by does not count as upstream's silence."""

    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncGenerator[bytes, None]:
            for _ in range(10):
                await trio.sleep(4)
                yield b"x"

    async with in_memory(pausing(4.0, OK)) as (client, _):
        headers = {"Transfer-Encoding": "chunked"}
        extensions = {"timeout": {"read": 5, "write": 5}}
        request = httpx.Request(
            "PUT", URL, headers=headers, stream=Slow(), extensions=extensions
        )
        assert (await client.send(request)).text == "ok"
        assert trio.current_time() >= 44


async def test_a_send_without_progress_is_a_write_timeout() -> None:
    """An upstream that stops reading is found by the write budget."""

    async def deaf(peer: Peer) -> None:
        await trio.sleep_forever()

    with trio.fail_after(10):
        async with (
            serving(deaf) as server,
            httpx.AsyncClient(transport=UpstreamTransport()) as client,
        ):
            with pytest.raises(httpx.WriteTimeout):
                await client.post(
                    server.url,
                    content=bytes(20_000_000),
                    timeout=httpx.Timeout(None, write=0.2),
                )


async def test_a_deadline_of_the_caller_comes_out_as_itself(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A scope of the caller's is never reported as one of httpx's timeouts."""
    async with in_memory(pausing(99.0)) as (client, transport):
        with trio.move_on_after(2) as scope:
            await client.get(URL, timeout=httpx.Timeout(5))
        assert scope.cancelled_caught
        assert transport.statistics().live == 0

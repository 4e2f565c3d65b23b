"""Request bodies: backpressure, early answers, and bodies that fail."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx
import pytest
import trio
import trio.testing

from tests.upstream.transport.servers import (
    OK,
    Peer,
    Request,
    both,
    client_of,
    serving,
)
from trio_ai_stream.upstream.transport import UpstreamTransport

PART = bytes(range(256)) * 256
REFUSAL = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"


class OutOfPaperError(Exception):
    """What a body's own iterator may raise."""


class Parts(httpx.AsyncByteStream):
    """A body of parts; it counts what was taken, and tells when it was closed."""

    def __init__(
        self, times: int = 1_000_000, *, part: bytes = PART, fails: bool = False
    ) -> None:
        self.times = times
        self.part = part
        self.fails = fails
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(self.times):
                await trio.lowlevel.checkpoint()
                self.taken += 1
                yield self.part
            if self.fails:
                raise OutOfPaperError
        finally:
            self.closed = True


def upload(url: str, body: Parts, *, length: int | None = None) -> httpx.Request:
    """A request with this body, in chunks unless a length is given."""
    if length is None:
        headers = {"Transfer-Encoding": "chunked"}
    else:
        headers = {"Content-Length": str(length)}
    return httpx.Request("POST", url, headers=headers, stream=body)


async def deaf(peer: Peer) -> None:
    """A server that never reads."""
    await trio.sleep_forever()


async def attentive(peer: Peer) -> None:
    """A server that reads one request, whole or not, and does not answer."""
    await peer.request()


def unchunked(data: bytes) -> bytes:
    """Join the chunks of a body whose last chunk was cut off."""
    body = bytearray()
    while data:
        size, data = data.split(b"\r\n", 1)
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return bytes(body)


@both
@pytest.mark.parametrize("times", [0, 1, 2, 40])
async def test_a_body_of_any_size_arrives_whole(tls: bool, times: int) -> None:
    """Bytes at hand, a stream with a length and one in chunks arrive as they were."""
    content = PART * times
    seen: list[Request] = []

    async def handle(peer: Peer) -> None:
        while request := await peer.request():
            seen.append(request)
            await peer.send(OK)

    with trio.fail_after(20):
        async with (
            serving(handle, tls=tls) as server,
            client_of() as (client, transport),
        ):
            for request in (
                httpx.Request("POST", server.url, content=content),
                upload(server.url, Parts(times), length=len(content)),
                upload(server.url, Parts(times)),
            ):
                assert (await client.send(request)).text == "ok"
            assert server.accepted == 1
            assert transport.statistics().idle == 1
    assert [seen[0].body, seen[1].body, unchunked(seen[2].body)] == [content] * 3


@both
@pytest.mark.parametrize("hangs_up", [False, True])
async def test_an_early_refusal_ends_the_sending(tls: bool, hangs_up: bool) -> None:
    """413 before the body was read is returned, even if a reset follows it."""

    async def refuse(peer: Peer) -> None:
        await peer.more()
        await peer.send(REFUSAL)
        if not hangs_up:
            await trio.sleep_forever()  # and never reads the rest

    body = Parts()
    with trio.fail_after(20):
        async with (
            serving(refuse, tls=tls) as server,
            client_of() as (client, transport),
        ):
            response = await client.send(upload(server.url, body))
            assert (response.status_code, response.text) == (413, "no")
            assert body.closed
            assert body.taken < 1_000
            assert (transport.statistics().idle, transport.statistics().live) == (0, 0)


async def test_a_success_waits_for_the_rest_of_the_request() -> None:
    """200 before the body was read: the request is still sent whole."""
    size = 0

    async def handle(peer: Peer) -> None:
        nonlocal size
        await peer.more()
        await peer.send(OK)
        while not peer.buffer.endswith(b"0\r\n\r\n"):
            await peer.more()
        size = len(peer.buffer)

    with trio.fail_after(20):
        async with serving(handle) as server, client_of() as (client, _):
            response = await client.send(upload(server.url, Parts(50)))
            assert response.text == "ok"
    assert size > 50 * len(PART)


async def test_a_server_that_does_not_read_holds_the_body_back() -> None:
    """Backpressure reaches the body's iterator, and a cancel closes it at once."""
    body = Parts()
    with trio.fail_after(20):
        async with serving(deaf) as server, client_of() as (client, _):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, upload(server.url, body))
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert 0 < body.taken < 200  # the kernel's buffers, no more
                nursery.cancel_scope.cancel(reason="seen enough")
            assert body.closed


async def test_a_body_that_fails_ends_the_request() -> None:
    """The iterator's own exception comes out unchanged, and the socket is closed."""
    body = Parts(2, fails=True)
    with trio.fail_after(10):
        async with serving(attentive) as server, client_of() as (client, transport):
            with pytest.raises(OutOfPaperError):
                await client.send(upload(server.url, body))
            await server.wait_open(0)
            assert transport.statistics().live == 0


@pytest.mark.parametrize("length", [1, 3])
async def test_a_body_of_another_length_is_a_local_error(length: int) -> None:
    """Too short or too long for its Content-Length: LocalProtocolError."""
    body = Parts(1, part=b"ab")
    with trio.fail_after(10):
        async with serving(attentive) as server, client_of() as (client, _):
            with pytest.raises(httpx.LocalProtocolError, match="length"):
                await client.send(upload(server.url, body, length=length))
            await server.wait_open(0)


async def test_a_connection_that_breaks_while_sending_is_a_write_error() -> None:
    """Closed in the middle of the body without an answer: WriteError."""

    async def hang_up(peer: Peer) -> None:
        await peer.more()

    with trio.fail_after(10):
        async with serving(hang_up) as server, client_of() as (client, _):
            with pytest.raises(httpx.WriteError):
                await client.send(upload(server.url, Parts()))


@pytest.mark.parametrize(("answer_after_s", "status"), [(0.5, 413), (1.5, None)])
async def test_upstream_has_a_second_for_its_last_words(
    autojump_clock: trio.testing.MockClock, answer_after_s: float, status: int | None
) -> None:
    """After a failed write the answer is awaited for a second, then it is an error."""

    class Broken(trio.abc.SendStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError

        async def wait_send_all_might_not_block(self) -> None:
            await trio.lowlevel.checkpoint()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

        def close(self) -> None:
            """Nothing is held."""

    theirs, ours = trio.testing.memory_stream_one_way_pair()

    async def connect(host: str, port: int, tls: bool) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return trio.StapledStream(Broken(), ours)

    async def answer() -> None:
        await trio.sleep(answer_after_s)
        await theirs.send_all(REFUSAL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with httpx.AsyncClient(
            transport=UpstreamTransport(connect=connect)
        ) as client:
            if status is None:
                with pytest.raises(httpx.ConnectError):  # nothing was sent
                    await client.post("http://host/", content=PART)
                assert trio.current_time() == pytest.approx(1, abs=0.1)
            else:
                response = await client.post("http://host/", content=PART)
                assert response.status_code == status
        nursery.cancel_scope.cancel(reason="the test is over")

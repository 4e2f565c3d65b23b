"""Keep-alive: which connection serves the next request, and what a stale one does."""

from __future__ import annotations

from collections.abc import AsyncIterator

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
    both,
    client_of,
    forever,
    in_memory,
    serving,
)
from trio_ai_stream.upstream.transport import (
    ConnectionInfo,
    TransportLimits,
    UpstreamTransport,
)


@both
async def test_a_response_read_to_its_end_hands_its_connection_on(tls: bool) -> None:
    """Requests one after the other share one connection, and say so."""
    with trio.fail_after(10):
        async with (
            serving(forever(OK), tls=tls) as server,
            client_of() as (client, transport),
        ):
            infos = [
                (await client.get(server.url)).extensions["connection"]
                for _ in range(3)
            ]
            assert [info.served for info in infos] == [0, 1, 2]
            assert [info.reused for info in infos] == [False, True, True]
            assert isinstance(infos[0], ConnectionInfo)
            assert infos[0].dial.peer == "127.0.0.1"
            assert (infos[0].dial.tls_s > 0) is tls
            assert server.accepted == 1
            assert transport.statistics().reuses == 2
        await server.wait_open(0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"surplus",
    ],
    ids=["close", "http/1.0", "surplus bytes"],
)
async def test_a_connection_that_cannot_go_on_is_closed(answer: bytes) -> None:
    """`Connection: close`, HTTP/1.0 and surplus bytes end the connection."""
    with trio.fail_after(10):
        async with (
            serving(forever(answer)) as server,
            client_of() as (client, transport),
        ):
            for _ in range(2):
                assert (await client.get(server.url)).text == "ok"
            assert server.accepted == 2
            assert (transport.statistics().idle, transport.statistics().live) == (0, 0)
            await server.wait_open(0)


async def test_our_own_connection_close_is_kept() -> None:
    """A request that says `Connection: close` is the last one of its connection."""
    with trio.fail_after(10):
        async with serving(forever(OK)) as server, client_of() as (client, _):
            for _ in range(2):
                await client.get(server.url, headers={"Connection": "close"})
            assert server.accepted == 2


async def test_an_answer_to_head_ends_the_connection() -> None:
    """Servers that send a body after HEAD could otherwise poison the next response."""
    with trio.fail_after(10):
        async with serving(forever(OK)) as server, client_of() as (client, _):
            assert (await client.head(server.url)).status_code == 200
            assert (await client.get(server.url)).text == "ok"
            assert server.accepted == 2


@both
async def test_an_unfinished_response_is_closed_and_a_drained_one_kept(
    tls: bool,
) -> None:
    """Leaving a body early closes; draining it first keeps the connection."""
    answer = CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"
    with trio.fail_after(10):
        async with (
            serving(forever(answer), tls=tls) as server,
            client_of() as (client, transport),
        ):
            async with client.stream("GET", server.url) as response:
                assert await response.extensions["body"].drain() is True
            assert transport.statistics().idle == 1

        async def half(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED + b"3\r\nabc\r\n")
            await peer.more()

        async with (
            serving(half, tls=tls) as server,
            client_of() as (client, transport),
        ):
            async with client.stream("GET", server.url) as response:
                assert await response.extensions["body"].receive() == b"abc"
            await server.wait_open(0)
            assert (transport.statistics().idle, transport.statistics().aborts) == (
                0,
                1,
            )


@both
async def test_a_connection_closed_while_idle_is_not_used(tls: bool) -> None:
    """A kept connection that the server has closed is found out before it is used."""
    with trio.fail_after(10):
        async with (
            serving(answering(OK), tls=tls) as server,
            client_of() as (client, transport),
        ):
            await client.post(server.url, content=b"a")
            await server.wait_open(0)
            await client.post(server.url, content=b"b")
            assert server.accepted == 2
            assert transport.statistics().stale == 1
            assert transport.statistics().retries == 0


def closing_on_second(seen: list[bytes]) -> Handler:
    """Answer the first request of each connection; close on the second, unanswered."""

    async def handle(peer: Peer) -> None:
        for answer in (OK, None):
            request = await peer.request()
            if request is None:
                return
            seen.append(request.body)
            if answer is None:
                return
            await peer.send(answer)

    return handle


async def exchange_on_closing(
    method: str,
    content: bytes | AsyncIterator[bytes] | None = None,
    headers: dict[str, str] | None = None,
) -> list[bytes]:
    """Two requests, the second on a connection that closes on it; what was seen."""
    seen: list[bytes] = []
    with trio.fail_after(10):
        async with (
            serving(closing_on_second(seen)) as server,
            client_of() as (client, transport),
        ):
            await client.get(server.url)
            try:
                response = await client.request(
                    method, server.url, content=content, headers=headers
                )
                assert response.text == "ok"
                assert transport.statistics().retries == 1
            except httpx.RemoteProtocolError:
                assert transport.statistics().retries == 0
            await server.wait_open(transport.statistics().idle)
            assert transport.statistics().live == 0
    return seen[1:]


async def test_an_idempotent_request_is_sent_again_once() -> None:
    """Closed without a byte of response: GET goes out again on a new connection."""
    assert await exchange_on_closing("GET") == [b"", b""]
    assert await exchange_on_closing("PUT", content=b"x") == [b"x", b"x"]


async def test_a_post_is_not_sent_twice() -> None:
    """A POST that may have been processed is the caller's to judge."""
    assert await exchange_on_closing("POST", content=b"x") == [b"x"]


async def test_a_post_with_an_idempotency_key_is_sent_again() -> None:
    """The key tells upstream that both are one request."""
    headers = {"Idempotency-Key": "k"}
    again = await exchange_on_closing("POST", content=b"x", headers=headers)
    assert again == [b"x", b"x"]


async def test_a_streamed_body_is_not_sent_twice() -> None:
    """A body that cannot be had again cannot be sent again."""

    async def parts() -> AsyncIterator[bytes]:
        await trio.lowlevel.checkpoint()
        yield b"x"

    assert len(await exchange_on_closing("PUT", content=parts())) == 1


async def test_a_post_is_sent_again_if_nothing_of_it_was_sent() -> None:
    """A connection that takes no byte at all has not delivered the request."""

    streams: list[trio.SocketStream] = []

    async def connect(host: str, port: int, tls: bool) -> trio.SocketStream:
        streams.append(await trio.open_tcp_stream(host, port))
        return streams[-1]

    with trio.fail_after(10):
        async with (
            serving(forever(OK)) as server,
            httpx.AsyncClient(transport=UpstreamTransport(connect=connect)) as client,
        ):
            await client.get(server.url)
            streams[0].socket.shutdown(trio.socket.SHUT_WR)  # the next write fails
            assert (await client.post(server.url, content=b"x")).text == "ok"
            assert (server.accepted, len(streams)) == (2, 2)


async def test_a_response_that_had_begun_is_not_asked_for_again() -> None:
    """After one byte of response a failure is final, even for GET."""
    answers = answering(OK, b"HTTP/1.1 2")
    with trio.fail_after(10):
        async with serving(answers) as server, client_of() as (client, transport):
            await client.get(server.url)
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(server.url)
            assert (server.accepted, transport.statistics().retries) == (1, 0)


async def test_a_new_connection_is_not_tried_twice() -> None:
    """A server that closes each connection unanswered gets one request, not a loop."""
    with trio.fail_after(10):
        async with serving(answering(b"")) as server, client_of() as (client, _):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(server.url)
            assert server.accepted == 1


async def test_an_idle_connection_expires_on_trios_clock(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One second before its expiry it is reused; after it, a new one is opened."""
    limits = TransportLimits(keepalive_expiry_s=60)
    async with in_memory(forever(OK), limits=limits) as (client, transport):
        await client.get("http://host/")
        await trio.sleep(59)
        await client.get("http://host/")
        assert transport.statistics().connects == 1
        await trio.sleep(60)
        await client.get("http://host/")
        assert transport.statistics().connects == 2
        assert transport.statistics().expired == 1
        assert transport.statistics().idle == 1


async def test_idle_connections_are_closed_though_nobody_asks(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each at its own time; the look ends with its nursery."""
    limits = TransportLimits(keepalive_expiry_s=60)
    async with in_memory(forever(OK), limits=limits) as (client, transport):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.reap_idle)
            await trio.sleep(45)
            await client.get("http://one/")
            await trio.sleep(30)
            await client.get("http://two/")
            idle = []
            for seconds in (29.9, 0.2, 29.8, 0.2):
                await trio.sleep(seconds)
                idle.append(transport.statistics().idle)
            nursery.cancel_scope.cancel()
        assert idle == [2, 1, 1, 0]
        assert transport.statistics().expired == 2


async def test_an_expiry_of_nothing_keeps_nobody_busy(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """With no keep-alive at all the look still rests in between."""
    limits = TransportLimits(keepalive_expiry_s=0)
    async with in_memory(forever(OK), limits=limits) as (client, transport):
        with trio.move_on_after(3600) as scope:
            await transport.reap_idle()
        assert scope.cancelled_caught
        await client.get("http://host/")
        assert transport.statistics().idle == 0


async def test_the_oldest_surplus_connection_is_closed() -> None:
    """Beyond the cap, the one idle for longest goes, of whatever origin."""
    limits = TransportLimits(max_idle=2)
    async with in_memory(forever(OK), limits=limits) as (client, transport):
        for host in "abc":
            await client.get(f"http://{host}/")
        assert transport.statistics().idle == 2
        await client.get("http://b/")
        assert transport.statistics().reuses == 1
        await client.get("http://a/")
        assert transport.statistics().connects == 4


async def test_the_warmest_connection_serves_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Connections are reused last in, first out, so that a surplus can age."""

    async def slowly(peer: Peer) -> None:
        while await peer.request():
            await peer.send(OK[:-1])
            await trio.sleep(1)
            await peer.send(OK[-1:])

    async with in_memory(slowly) as (client, transport):
        async with (
            client.stream("GET", "http://host/") as first,
            client.stream("GET", "http://host/") as second,
        ):
            await first.aread()
            await second.aread()
        assert transport.statistics().idle == 2
        served = [
            (await client.get("http://host/")).extensions["connection"].served
            for _ in range(3)
        ]
        assert served == [1, 2, 3]


async def test_origins_do_not_share_connections() -> None:
    """Scheme, host and port together say whom a connection may serve."""
    async with in_memory(forever(OK)) as (client, transport):
        for url in ("http://a/", "http://b/", "http://a:81/", "https://a/"):
            await client.get(url)
        assert transport.statistics().connects == 4
        await client.get("http://a:80/")
        assert transport.statistics().connects == 4


async def test_a_closed_transport_closes_all_and_refuses() -> None:
    """aclose closes the idle, aborts the live, and takes no new request."""
    chunk = CHUNKED + b"1\r\na\r\n"

    async def handle(peer: Peer) -> None:
        while request := await peer.request():
            await peer.send(OK if b"/ok" in request.head else chunk)

    with trio.fail_after(10):
        async with serving(handle) as server, client_of() as (client, transport):
            async with client.stream("GET", server.url) as response:
                await client.get(server.url + "/ok")
                body = response.extensions["body"]
                assert await body.receive() == b"a"
                assert server.open == 2
                await transport.aclose()
                await server.wait_open(0)
                with pytest.raises(httpx.ReadError):
                    await body.receive()
            with pytest.raises(RuntimeError, match="closed"):
                await client.get(server.url)
            assert repr(transport) == "<UpstreamTransport idle=0 live=0 connecting=0>"

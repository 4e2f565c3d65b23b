"""What Hypercorn as it is makes of odd HTTP that RFC 9112 and RFC 9113 speak of.

As in test_stock_defects.py a test here passes because of a defect.
"""

from __future__ import annotations

import pytest
import trio

from tests.conformance.cases_http1 import CHUNKED, HOST, POST
from tests.support.server import frames as f
from tests.support.server.client import Client, events_of, get
from tests.support.server.servers import LocalServer, serve_stock_while

STREAM = f.hello() + f.request(1, b"/stream?n=9&every=0.05")
ERRORS_OF_A_STREAM = {
    "a body longer than said": f.request(
        3, b"/echo", extra=((b"content-length", b"1"),), end=False
    )
    + f.data(3, b"hi"),
    "a length that is no number": f.request(3, extra=((b"content-length", b"x"),)),
    "trailers that do not end": f.request(3, b"/echo", end=False)
    + f.headers(3, ((b"x", b"y"),), end=False),
    "malformed trailers": f.request(3, b"/echo", end=False)
    + f.headers(3, ((b":path", b"/"),)),
    "credit of 0": f.request(3, b"/stream?n=9&every=1") + f.credit(3, 0),
    "a PRIORITY of 4 bytes": f.request(3) + f.frame(2, 0, 3, bytes(4)),
}


@pytest.mark.parametrize("name", ERRORS_OF_A_STREAM)
async def test_an_error_of_one_stream_ends_the_connection(name: str) -> None:
    """The stream beside it is cut."""
    assert await _is_cut_by(ERRORS_OF_A_STREAM[name])


async def test_a_goaway_ends_the_streams_that_live() -> None:
    """It says NO_ERROR: no new streams, and h2 makes an end of the old ones."""
    assert await _is_cut_by(f.frame(7, 0, 0, bytes(8)))


async def _is_cut_by(data: bytes) -> bool:
    cut: list[bool] = []

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(STREAM)
            await client.frames_until(lambda seen: bool(f.body(seen, 1)))
            await client.say(data)
            with trio.move_on_after(1):
                await client.frames_until(lambda seen: f.ended(seen, 1))
            seen = f.parse(client.received)
            cut.append(len(events_of(f.body(seen, 1))) < 9)

    await serve_stock_while(body)
    return cut == [True]


async def test_100_continue_is_not_answered_over_http2() -> None:
    """The client waits until it is tired of waiting."""
    extra = ((b"expect", b"100-continue"),)

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + f.request(1, b"/echo", extra=extra, end=False))
            with trio.move_on_after(0.3):
                await client.frames_until(lambda seen: bool(f.status(seen, 1)))
            assert not f.status(f.parse(client.received), 1)

    await serve_stock_while(body)


async def test_frames_of_one_byte_may_go_on_for_ever() -> None:
    """20000 of them, and as many of credit, are nothing that ends the connection."""
    body_of_bytes = f.request(5, b"/echo", end=False) + f.data(5, b"x") * 9000
    credit = f.request(3, b"/stream?n=9&every=9") + f.credit(3, 1) * 20_000

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + credit + body_of_bytes + f.request(7, b"/ok"))
            await client.frames_until(lambda seen: f.ended(seen, 7))
            assert f.status(f.parse(client.received), 7) == 200

    await serve_stock_while(body)


LAST = "Connection: close"
HTTP1: dict[str, tuple[bytes, bytes]] = {
    "a status without its phrase": (get("/ok", LAST), b"HTTP/1.1 200 \r\n"),
    "bytes behind the last request": (
        get("/unread?after=0.5", LAST) + b"\r\n",
        b"HTTP/1.1 400",
    ),
    "an empty line before a request": (b"\r\n" + get("/ok", LAST), b"HTTP/1.1 400"),
    "an invalid host": (HOST % b"user@t", b"HTTP/1.1 200"),
    "a NUL in a chunk extension": (
        CHUNKED.replace(POST, POST + b"Connection: close\r\n")
        + b"1;\0\r\nh\r\n0\r\n\r\n",
        b"HTTP/1.1 200",
    ),
    "an absolute target": (get("http://t/ok", LAST), b"http://t/ok"),
}


@pytest.mark.parametrize("name", HTTP1)
async def test_http1_is_taken_otherwise(name: str) -> None:
    """What is right is refused or mistaken, and what is wrong is taken."""
    request, found = HTTP1[name]

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(request)
            await client.read_until(lambda answer: found in answer)
            assert found in client.received

    await serve_stock_while(body)

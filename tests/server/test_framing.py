"""How a response over HTTP/1.1 ends, and what the client sees of one that is wrong."""

from __future__ import annotations

import pytest

from tests.support.server.client import Client, get
from tests.support.server.servers import LocalServer, serve_while

CHUNKED = b"transfer-encoding: chunked"


async def ask(*requests: bytes) -> bytes:
    """Return all that comes for them, up to the end of the connection."""
    found = []

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(b"".join(requests))
            found.append(await client.read_to_end())

    await serve_while(body)
    return found[0]


def head(query: str, method: str, version: str) -> bytes:
    """A request for "hello"."""
    return get(f"/hello{query}", version=version).replace(b"GET", method.encode())


@pytest.mark.parametrize(
    ("query", "method", "version", "framing", "body"),
    [
        ("", "GET", "1.1", b"content-length: 5", b"hello"),
        ("", "GET", "1.0", b"content-length: 5", b"hello"),
        ("", "HEAD", "1.1", b"content-length: 5", b""),
        ("?length=none", "GET", "1.1", CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"),
        ("?length=none", "GET", "1.0", b"connection: close", b"hello"),
        ("?length=none", "HEAD", "1.1", CHUNKED, b""),
        ("?length=none", "HEAD", "1.0", b"connection: close", b""),
    ],
)
async def test_a_response_says_how_it_ends(
    query: str, method: str, version: str, framing: bytes, body: bytes
) -> None:
    """By its length, in chunks, or with the connection; HEAD says the same of GET."""
    request = head(query, method, version)
    answer = await ask(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    fields, _, rest = answer.partition(b"\r\n\r\n")
    lines = fields.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert framing in lines
    assert b"connection: close" in lines
    assert (CHUNKED in lines) == (framing == CHUNKED)
    assert rest == body


@pytest.mark.parametrize("length", ["4", "6"])
async def test_a_body_that_is_not_as_long_as_it_says_does_not_look_whole(
    length: str,
) -> None:
    """Nor does anything follow it on its connection."""
    answer = await ask(head(f"?length={length}", "GET", "1.1"), get("/ok"))
    fields, _, rest = answer.partition(b"\r\n\r\n")
    assert fields.startswith(b"HTTP/1.1 200 OK")
    assert b"content-length: " + length.encode() in fields.split(b"\r\n")
    assert not rest


@pytest.mark.parametrize("length", ["five", "-5", "5%0d%0aSet-Cookie:%20a"])
async def test_a_length_that_is_none_is_no_head(length: str) -> None:
    """It is the application's failure, and its client is told so."""
    answer = await ask(head(f"?length={length}", "GET", "1.1"))
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"hello" not in answer
    assert b"Set-Cookie" not in answer

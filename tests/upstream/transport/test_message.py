"""Requests as bytes, and the requests that are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import trio

from trio_ai_stream.upstream.transport.http1_messages import RequestMessage
from trio_ai_stream.upstream.transport.transport_errors import InvalidRequestError

URL = "http://host/path?q=1"


class Parts(httpx.AsyncByteStream):
    """A body that comes in parts."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            await trio.lowlevel.checkpoint()
            yield part


async def written(message: RequestMessage) -> bytes:
    """Everything that the message puts on the wire."""
    wire = bytearray()

    async def emit(piece: bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert len(piece) <= 65_536 + 16
        wire.extend(piece)

    await message.write(emit)
    return bytes(wire)


def test_a_small_request_is_one_piece_with_headers_as_given() -> None:
    """Order and spelling of the headers stay, and the body follows at once."""
    request = httpx.Request(
        "POST", URL, content=b"abc", headers={"Host": "h", "X-Key": "Value"}
    )
    assert RequestMessage.of(request).small() == (
        b"POST /path?q=1 HTTP/1.1\r\nHost: h\r\nX-Key: Value\r\n"
        b"Content-Length: 3\r\n\r\nabc"
    )


def test_a_bytes_body_may_be_chunked_too() -> None:
    """The framing that the headers announce is the framing that is used."""
    headers = {"Transfer-Encoding": "chunked"}
    stream = httpx.ByteStream(b"abc")
    message = RequestMessage.of(
        httpx.Request("POST", URL, headers=headers, stream=stream)
    )
    small = message.small()
    assert small is not None
    assert small.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")


async def test_a_stream_of_unknown_length_is_chunked() -> None:
    """Each part becomes a chunk; an empty part does not end the body."""
    headers = {"Transfer-Encoding": "chunked"}
    parts = Parts(b"ab", b"", b"c" * 17)
    message = RequestMessage.of(
        httpx.Request("POST", URL, headers=headers, stream=parts)
    )
    assert message.small() is None
    wire = await written(message)
    assert wire.endswith(b"\r\n\r\n2\r\nab\r\n11\r\n" + b"c" * 17 + b"\r\n0\r\n\r\n")


async def test_a_large_body_goes_out_in_blocks() -> None:
    """A body beyond a block is not copied whole."""
    body = bytes(range(256)) * 1000
    message = RequestMessage.of(httpx.Request("POST", URL, content=body))
    assert message.small() is None
    assert (await written(message)).endswith(body)


@pytest.mark.parametrize("length", ["3", "5"])
async def test_a_body_of_another_length_than_announced_is_refused(length: str) -> None:
    """Upstream would take the rest of the body for another request, or wait for it."""
    headers = {"Content-Length": length}
    parts = Parts(b"ab", b"cd")
    message = RequestMessage.of(
        httpx.Request("POST", URL, headers=headers, stream=parts)
    )
    with pytest.raises(InvalidRequestError, match="length"):
        await written(message)


def test_a_bytes_body_of_another_length_is_refused() -> None:
    """The same holds for a body that is at hand."""
    stream = httpx.ByteStream(b"abc")
    request = httpx.Request("POST", URL, headers={"Content-Length": "2"}, stream=stream)
    with pytest.raises(InvalidRequestError, match="length"):
        RequestMessage.of(request).small()


@pytest.mark.parametrize(
    "headers",
    [
        [(b"X", b"a\r\nY: b")],
        [(b"X", b"a\nb")],
        [(b"X", b"a\rb")],
        [(b"X", b"a\r"), (b"Y", b"\nb")],
        [(b"X", b"a\0")],
        [(b"X Y", b"a")],
        [(b"", b"a")],
        [(b"X:", b"a")],
        [(b"Content-Length", b"3"), (b"Content-Length", b"3")],
        [(b"Content-Length", b"-3")],
        [(b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")],
        [(b"Transfer-Encoding", b"gzip, chunked")],
    ],
)
def test_headers_that_could_mean_another_request_are_refused(
    headers: list[tuple[bytes, bytes]],
) -> None:
    """Line breaks, odd names and double framing never reach the wire."""
    stream = httpx.ByteStream(b"abc")
    with pytest.raises(InvalidRequestError):
        RequestMessage.of(httpx.Request("POST", URL, headers=headers, stream=stream))


def test_a_method_with_a_line_break_is_refused() -> None:
    """The request line is as safe as the headers."""
    with pytest.raises(InvalidRequestError, match="method"):
        RequestMessage.of(httpx.Request("GET / HTTP/1.1\r\nX:", URL))


@pytest.mark.parametrize(
    ("method", "headers", "idempotent"),
    [
        ("GET", {}, True),
        ("PUT", {}, True),
        ("POST", {}, False),
        ("PATCH", {}, False),
        ("POST", {"Idempotency-Key": "1"}, True),
    ],
)
def test_what_may_be_sent_twice(
    method: str, headers: dict[str, str], idempotent: bool
) -> None:
    """Idempotent are the methods of RFC 9110 9.2.2, and what carries a key."""
    message = RequestMessage.of(httpx.Request(method, URL, headers=headers))
    assert message.idempotent is idempotent


async def test_a_streamed_body_can_be_sent_once() -> None:
    """Once a part of it was taken, a stream cannot start over; bytes can."""
    streamed = RequestMessage.of(
        httpx.Request(
            "PUT", URL, headers={"Transfer-Encoding": "chunked"}, stream=Parts(b"a")
        )
    )
    at_hand = RequestMessage.of(httpx.Request("PUT", URL, content=b"a" * 100_000))
    before = streamed.replayable
    await written(streamed)
    await written(at_hand)
    assert (before, streamed.replayable) == (True, False)
    assert at_hand.replayable

"""The request reader: fed whole, byte by byte and with a tail, and with rubbish."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.simulator.http_messages import (
    HEAD_LIMIT,
    RequestError,
    RequestReader,
)

POST = (
    b"POST /api/v1/chat/completions?a=1&a=2 HTTP/1.1\r\nHost: x\r\nX-Request-ID: r1\r\n"
    b"Content-Length: 11\r\n\r\nhello world"
)
CHUNKED = (
    b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
)


@pytest.mark.parametrize("data", [POST, CHUNKED])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_any_cut_gives_the_same_request(data: bytes, size: int) -> None:
    """Where the bytes are cut changes nothing."""
    reader = RequestReader()
    for at in range(0, len(data), size):
        assert not reader.request.complete
        reader.feed(data[at : at + size])
    request = reader.request
    assert request.complete
    assert (request.method, bytes(request.body)) == ("POST", b"hello world")
    assert request.keep_alive
    assert request.http11
    if data is POST:
        assert request.path == "/api/v1/chat/completions"
        assert request.query == {"a": "2"}
        assert request.headers["x-request-id"] == "r1"


@pytest.mark.parametrize(
    ("head", "keep", "http11"),
    [
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False, True),
        (b"GET / HTTP/1.0\r\n\r\n", False, False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True, False),
    ],
)
def test_persistence_is_the_clients_wish(head: bytes, keep: bool, http11: bool) -> None:
    """Whether the connection may be used again follows version and header."""
    reader = RequestReader()
    reader.feed(head)
    assert (reader.request.keep_alive, reader.request.http11) == (keep, http11)


def test_bytes_of_the_next_request_are_kept() -> None:
    """What came during an answer begins the next request."""
    reader = RequestReader()
    reader.feed(POST)
    reader.keep(POST[:30])
    assert reader.waiting == 30
    reader.next_request()
    assert not reader.request.complete
    reader.feed(POST[30:])
    assert reader.request.complete


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"GET //[ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://[/api HTTP/1.1\r\n\r\n", 400),
        (POST + POST, 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_LIMIT + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 400),
    ],
)
def test_rubbish_is_refused(data: bytes, status: int) -> None:
    """Bytes that are not one request we take raise RequestError with a status."""
    with pytest.raises(RequestError) as caught:
        RequestReader().feed(data)
    assert caught.value.status == status


@given(st.lists(st.binary(max_size=40) | st.sampled_from([POST[:40], POST[40:]])))
def test_no_bytes_do_anything_else(parts: list[bytes]) -> None:
    """Any bytes at all either make a request or raise RequestError."""
    reader = RequestReader()
    with contextlib.suppress(RequestError):
        for part in parts:
            reader.feed(part)
        assert reader.request.complete <= reader.request.head_done


@pytest.mark.parametrize("body", [b'{"model":"simulator/x?a=1","messages":[', b'{"a":'])
def test_the_model_is_known_early(body: bytes) -> None:
    """The simulator's model name is found in the beginning of a body."""
    reader = RequestReader()
    head = b"POST / HTTP/1.1\r\nContent-Length: 9999\r\n\r\n"
    reader.feed(head + body)
    expected = "simulator/x?a=1" if b"model" in body else None
    assert reader.request.early_model() == expected

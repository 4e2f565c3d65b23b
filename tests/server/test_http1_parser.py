"""Requests out of bytes, without a socket: beside h11, in any pieces, within bounds."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_ai_stream.server.http1_parser import (
    BadRequestError,
    EndOfRequest,
    Request,
    RequestParser,
)

BOUND: Final = 400
EMPTY_LINES: Final = re.compile(rb"\A(?:\r?\n)*")
POST: Final = b"POST /chat HTTP/1.1\r\nHost: t\r\n"
CHUNKED: Final = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET: Final = b"GET /ok HTTP/1.1\r\nHost: t\r\n\r\n"
GOOD: Final = (
    GET + GET,
    POST + b"Content-Length: 5\r\n\r\nhello" + GET,
    POST + b"Content-Length: 0\r\n\r\n\r\n\r\n" + GET,
    CHUNKED + b"0\r\n\r\n" + GET,
    CHUNKED + b"5\r\nhello\r\n0006;a=b \r\n world\r\n0\r\nX: y\r\nZ:\r\n\r\n" + GET,
    b"GET /ok HTTP/1.1\nHost:t\nX-Blank:\t a  b \t\nX-None:\n\n" + GET,
    b"GET /ok HTTP/1.0\r\n\r\n",
)


def read(pieces: Sequence[bytes], bound: int = BOUND) -> Iterator[object]:
    """Give what the parser makes of pieces, the parts of a body joined."""
    parser = RequestParser(bound)
    body = b""
    for piece in pieces:
        parser.feed(piece)
        while (event := parser.next_event()) is not None:
            if isinstance(event, bytes):
                body += event
                continue
            if event is EndOfRequest.HERE:
                yield body
                body = b""
                parser.start_next()
            yield event
    assert not parser.ahead or not parser.whole


def read_by_h11(data: bytes) -> Iterator[object]:
    """Give the same in the same form as h11 sees it, up to a last request.

    h11 takes no empty line before a request, so it is given none.
    """
    while data := EMPTY_LINES.sub(b"", data, count=1):
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(data)
        body = b""
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Request):
                yield event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                assert isinstance(event, h11.EndOfMessage)
                yield body
                yield EndOfRequest.HERE
                break
        if connection.their_state is not h11.DONE:
            return
        data = connection.trailing_data[0]


def as_ours(event: object) -> object:
    """Return what both say of an event."""
    if isinstance(event, Request):
        return event.method, event.target, event.version.encode(), event.headers
    if isinstance(event, h11.Request):
        headers = list(event.headers)
        return event.method, event.target, event.http_version, headers
    return event


@pytest.mark.parametrize("data", GOOD)
def test_a_request_is_the_same_however_it_is_cut(data: bytes) -> None:
    """In two pieces, cut anywhere, and byte by byte."""
    whole = list(read([data]))
    assert whole.count(EndOfRequest.HERE) == data.count(b" HTTP/1.")
    assert list(read([data[i : i + 1] for i in range(len(data))])) == whole
    for cut in range(len(data)):
        assert list(read([data[:cut], data[cut:]])) == whole


@pytest.mark.parametrize("data", GOOD)
def test_h11_reads_the_same(data: bytes) -> None:
    """Each request that is good, with all that is in it."""
    ours = list(map(as_ours, read([data])))
    assert ours == list(map(as_ours, read_by_h11(data)))


PARTS: Final = (
    *(b"GET", b"POST", b"G(T", b" ", b"  ", b"/", b"/ok", b"HTTP/1.1", b"HTTP/1.0"),
    *(b"HTTP/2.0", b"\r\n", b"\n", b"\r", b"\t", b":", b": ", b"Host: t", b"Host"),
    *(b"Content-Length: 5", b"Content-Length: +5", b"5, 5", b"5", b"0", b"A", b"hello"),
    *(b"Transfer-Encoding: chunked", b"transfer-encoding:\tCHUNKED", b"chunked", b","),
    *(b"Connection: close", b"Expect: 100-continue", b";a=b", b"\0", b"\x0b", b"\xe9"),
    *(b"GET /ok HTTP/1.1\r\nHost: t\r\n", POST, CHUNKED, GET, b"5\r\nhello\r\n0\r\n"),
)


@given(st.lists(st.sampled_from(PARTS), max_size=14).map(b"".join))
@example(CHUNKED + b"5;a\r\nhello\r\n0\r\nHost: x\r\n\r\n" + GET)
def test_nothing_is_taken_that_h11_refuses(data: bytes) -> None:
    """What we take for a request is the same one for it, and ends where it ends.

    Only whole requests are compared: h11 says of a half what is wrong with it later.
    """
    ours: list[object] = []
    with suppress(BadRequestError):
        ours.extend(read([data], bound=10_000))
    theirs: list[object] = []
    with suppress(h11.RemoteProtocolError):
        theirs.extend(read_by_h11(data))
    last = [i for i, event in enumerate(ours) if event is EndOfRequest.HERE]
    requests = ours[: last[-1] + 1] if last else []
    for index, event in enumerate(requests):
        if isinstance(event, Request) and not event.persists:
            requests = requests[: index + 3]  # h11 reads nothing behind it
            break
    assert list(map(as_ours, requests)) == list(map(as_ours, theirs))[: len(requests)]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
        (POST + b"Content-Length: 5, 5\r\n\r\n", 400),
        (POST + b"Content-Length: +5\r\n\r\n", 400),
        (POST + b"Content-Length: 5 5\r\n\r\n", 400),
        (POST + b"Content-Length: 0x5\r\n\r\n", 400),
        (POST + b"Content-Length:\r\n\r\n", 400),
        (POST + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n", 400),
        (POST + b"Content-Length\t: 5\r\n\r\n", 400),
        (POST + b"Content-Length: 5\x0b\r\n\r\n", 400),
        (POST + b"X: a\rContent-Length: 5\r\n\r\n", 400),
        (POST + b" Content-Length: 5\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (CHUNKED + b"0x5\r\n", 400),
        (CHUNKED + b" 5\r\n", 400),
        (CHUNKED + b"5 \n", 400),
        (CHUNKED + b"5\n", 400),
        (CHUNKED + b";a\r\n", 400),
        (CHUNKED + b"\r\n", 400),
        (CHUNKED + b"f" * 16 + b"\r\n", 400),
        (CHUNKED + b"5\r\nhello0\r\n", 400),
        (CHUNKED + b"5\r\nhello\n", 400),
        (CHUNKED + b"0\r\n folded: y\r\n\r\n", 400),
        (CHUNKED + b"0\r\nno field\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: t\r\n\r\n", 400),
        (b"GET / x HTTP/1.1\r\nHost: t\r\n\r\n", 400),
        (b"GET /\x7f HTTP/1.1\r\nHost: t\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: t\r\n\r\n", 400),
        (b"GET / HTTP/1.2\r\nHost: t\r\n\r\n", 505),
        (b"\x16\x03\x01", 400),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes, status: int) -> None:
    """Each with its status, whole and byte by byte."""
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        with pytest.raises(BadRequestError) as refused:
            list(read(pieces))
        assert refused.value.status == status


def filled(front: bytes, back: bytes, size: int) -> bytes:
    """Bytes of that size, up to `back`."""
    return front + b"x" * (size - len(front)) + back


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize(
    ("before", "front", "back"),
    [
        (b"", b"GET / HTTP/1.1\r\nHost: t\r\nX: ", b"\r\n\r\n"),
        (CHUNKED, b"1;", b"\r\n"),
        (CHUNKED + b"0\r\n", b"X: ", b"\r\n\r\n"),
    ],
)
def test_what_has_no_length_is_bounded(
    before: bytes, front: bytes, back: bytes, over: int
) -> None:
    """A head, the line of a chunk and trailers, whether their end has come or not."""
    # The bound counts up to the last field's end, and the line of a chunk with its own.
    size = BOUND + over - (2 if before == CHUNKED else 1)
    for end in (back, b""):
        pieces: Any = [before, filled(front, end, size + (not end) * 2)]
        if over:
            with pytest.raises(BadRequestError) as refused:
                list(read(pieces))
            assert refused.value.status == 431
        elif end:
            assert list(read(pieces))


@pytest.mark.parametrize("ahead", [b"", GET])
def test_a_request_that_is_read_is_not_held(ahead: bytes) -> None:
    """Its response may be a stream of hours."""
    size = 60_000
    parser = RequestParser(BOUND)
    parser.feed(POST + b"Content-Length: %d\r\n\r\n" % size + bytes(size) + ahead)
    while parser.next_event() is not EndOfRequest.HERE:
        pass
    held = [one for one in gc.get_referents(parser) if isinstance(one, bytes)]
    assert held == [ahead]


def test_what_comes_ahead_waits() -> None:
    """Nothing behind a request is read before its response is over."""
    parser = RequestParser(BOUND)
    parser.feed(GET + b"\0")
    assert isinstance(parser.next_event(), Request)
    assert parser.next_event() is EndOfRequest.HERE
    assert parser.next_event() is None
    assert parser.whole
    assert parser.ahead
    parser.start_next()
    with pytest.raises(BadRequestError):
        parser.next_event()

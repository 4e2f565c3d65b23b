"""The response parser, fed whole, byte by byte and in random cuts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.upstream.transport.http1_messages import ResponseParser
from trio_ai_stream.upstream.transport.transport_errors import (
    InvalidResponseError,
    UnexpectedEndError,
)
from trio_ai_stream.upstream.transport.transport_limits import TransportLimits

LIMITS = TransportLimits()
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass
class Case:
    """A response on the wire and what it means."""

    wire: bytes
    body: bytes = b""
    status: int = 200
    method: str = "GET"
    reusable: bool = True
    ends_by_close: bool = False
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)


GOOD = {
    "length": Case(OK + b"Content-Length: 3\r\n\r\nabc", b"abc"),
    "length zero": Case(OK + b"Content-Length: 0\r\n\r\n"),
    "chunked": Case(CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
    "chunk extension": Case(CHUNKED + b'1;a=b;c="d"\r\na\r\n0;z\r\n\r\n', b"a"),
    "trailers": Case(
        CHUNKED + b"1\r\na\r\n0\r\nX-Sum: 1\r\nX-End: yes\r\n\r\n",
        b"a",
        trailers=[(b"X-Sum", b"1"), (b"X-End", b"yes")],
    ),
    "until close": Case(OK + b"\r\nabc", b"abc", reusable=False, ends_by_close=True),
    "until close, empty": Case(OK + b"\r\n", reusable=False, ends_by_close=True),
    "connection close": Case(
        OK + b"Connection: close\r\nContent-Length: 1\r\n\r\na", b"a", reusable=False
    ),
    "http/1.0": Case(
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", b"a", reusable=False
    ),
    "http/1.0 keep-alive": Case(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", b"a"
    ),
    "204": Case(b"HTTP/1.1 204 No Content\r\n\r\n", status=204),
    "304 with a length": Case(
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", status=304
    ),
    "head": Case(OK + b"Content-Length: 9\r\n\r\n", method="HEAD", reusable=False),
    "head chunked": Case(CHUNKED, method="HEAD", reusable=False),
    "100 and 103 first": Case(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
        + OK
        + b"Content-Length: 1\r\n\r\na",
        b"a",
    ),
    "no reason": Case(b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", status=404),
}

BAD = {
    "not http": b"SSH-2.0-OpenSSH_9\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\n",
    "http/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "length and chunked": OK
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "length twice": OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length as a list": OK + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": OK + b"Content-Length: +3\r\n\r\nabc",
    "hexadecimal length": OK + b"Content-Length: 0x3\r\n\r\nabc",
    "huge length": OK + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "gzip coding": OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "unknown coding": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "prefixed chunk size": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "signed chunk size": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "blank before size": CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n",
    "bare line feeds": CHUNKED + b"3\nabc\n0\n\n",
    "chunk too long": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "huge chunk size": CHUNKED + b"fffffffffffffffff\r\nabc",
    "length in the trailer": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "folded header": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "blank before colon": OK + b"X : a\r\nContent-Length: 0\r\n\r\n",
    "nul in a header": OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "bare carriage return": OK + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\n"
    b"Upgrade: h2c\r\n\r\n",
    "101 without upgrade": b"HTTP/1.1 101 Switching\r\n\r\n",
}


def parse(case: Case, pieces: list[bytes]) -> tuple[bytes, ResponseParser]:
    """Feed the pieces, then the end if the body needs it."""
    parser = ResponseParser(case.method, LIMITS)
    body = b"".join(parser.feed(piece) for piece in pieces)
    if case.ends_by_close:
        assert not parser.complete
        parser.feed_end()
    return body, parser


def feed_all(parser: ResponseParser, pieces: list[bytes]) -> None:
    """Feed the pieces one after the other; raise what is found to be wrong."""
    for piece in pieces:
        parser.feed(piece)
        if parser.failure is not None:
            raise parser.failure


def check(case: Case, pieces: list[bytes]) -> None:
    """Assert that the pieces give what the case says."""
    body, parser = parse(case, pieces)
    assert parser.complete
    assert parser.head is not None
    assert (body, parser.head.status) == (case.body, case.status)
    assert parser.reusable is case.reusable
    assert parser.trailers == case.trailers


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_a_response_means_the_same_whole_and_byte_by_byte(case: Case) -> None:
    """How the network cuts a response changes nothing in it."""
    check(case, [case.wire])
    check(case, [bytes([byte]) for byte in case.wire])


@given(case=st.sampled_from(list(GOOD.values())), data=st.data())
def test_a_response_means_the_same_in_random_cuts(
    case: Case, data: st.DataObject
) -> None:
    """Any cut into pieces gives the same response."""
    places = st.lists(st.integers(0, len(case.wire)), max_size=8)
    cuts = [0, *sorted(data.draw(places)), len(case.wire)]
    check(case, [case.wire[a:b] for a, b in itertools.pairwise(cuts) if a < b])


@given(chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=30))
def test_chunks_join_to_the_body(chunks: list[bytes]) -> None:
    """A chunked body is the concatenation of its chunks, whatever bytes they hold."""
    wire = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks)
    check(Case(wire + b"0\r\n\r\n", b"".join(chunks)), [wire, b"0\r\n\r\n"])


@pytest.mark.parametrize("wire", BAD.values(), ids=BAD)
def test_what_two_parsers_could_read_in_two_ways_is_refused(wire: bytes) -> None:
    """Ambiguous framing and malformed bytes are errors, whole and byte by byte."""
    for pieces in ([wire], [bytes([byte]) for byte in wire]):
        parser = ResponseParser("GET", LIMITS)
        with pytest.raises(InvalidResponseError):
            feed_all(parser, pieces)


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_every_truncation_is_told_from_the_end(case: Case) -> None:
    """A connection that ends early is an error, except where the body ends by it."""
    head_end = case.wire.rindex(b"\r\n\r\n") if case.ends_by_close else len(case.wire)
    for cut in range(head_end):
        parser = ResponseParser(case.method, LIMITS)
        parser.feed(case.wire[:cut])
        with pytest.raises(UnexpectedEndError):
            parser.feed_end()


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\n", b"\0junk", b"x"])
def test_bytes_after_the_end_spoil_only_the_connection(extra: bytes) -> None:
    """The response stands, but the connection serves no other request."""
    parser = ResponseParser("GET", LIMITS)
    assert parser.feed(OK + b"Content-Length: 3\r\n\r\nabc" + extra) == b"abc"
    assert parser.complete
    assert not parser.reusable


def test_a_body_after_an_answer_to_head_is_not_read() -> None:
    """An answer to HEAD ends with its head, whatever the server sends after it."""
    parser = ResponseParser("HEAD", LIMITS)
    assert parser.feed(OK + b"Content-Length: 3\r\n\r\nabc") == b""
    assert parser.complete


@pytest.mark.parametrize(
    ("limits", "wire"),
    [
        (TransportLimits(max_head_bytes=100), OK + b"X: " + b"a" * 200 + b"\r\n\r\n"),
        (TransportLimits(max_head_bytes=100), OK + b"X: " + b"a" * 200),
        (TransportLimits(max_head_bytes=100), b"HTTP/1.1 200 " + b"a" * 200),
        (TransportLimits(max_head_bytes=100), b"HTTP/1.1 103 E\r\n\r\n" * 10),
        (TransportLimits(max_header_count=9), OK + b"X: a\r\n" * 10 + b"\r\n"),
        (TransportLimits(max_overhead_bytes=50), CHUNKED + b"1;" + b"a" * 100),
        (TransportLimits(max_overhead_bytes=50), CHUNKED + b"0\r\nX: " + b"a" * 100),
        (TransportLimits(max_header_count=9), CHUNKED + b"0\r\n" + b"X: a\r\n" * 11),
        (
            TransportLimits(max_head_bytes=99),
            CHUNKED + b"0\r\nX: " + b"a" * 99 + b"\r\n\r\n",
        ),
    ],
)
def test_whatever_can_grow_is_bounded(limits: TransportLimits, wire: bytes) -> None:
    """Heads, header lines, chunk extensions and trailers without end are refused."""
    parser = ResponseParser("GET", limits)
    with pytest.raises(InvalidResponseError):
        feed_all(parser, [wire[at : at + 10] for at in range(0, len(wire), 10)])


def test_release_lets_go_of_the_parser_without_the_collector() -> None:
    """After `release` nothing refers back to the parser, and it takes no more data."""
    parser = ResponseParser("GET", LIMITS)
    parser.feed(OK)
    parser.release()
    parser.release()
    with pytest.raises(InvalidResponseError, match="ended"):
        parser.feed(b"\r\n")

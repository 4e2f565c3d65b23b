"""Hostile and odd HTTP/2, and what must come back (RFC 9113).

`expect` is a set of things seen: `goaway N`, `reset N` of any stream, `STREAM: STATUS`,
or `closed`. A case that expects no GOAWAY also shows that the connection still serves:
its bytes end with a request on stream 99, whose status must be 200.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.guarding import frames as f

STILL = f.request(99, b"/ok")
# The codes are h2's choice; it says PROTOCOL_ERROR for what HPACK rejects as well.
PROTOCOL, FLOW, CLOSED, SIZE, CALM = 1, 3, 5, 6, 11
FIELDS = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/ok"))
AUTHORITY = (b":authority", b"t")  # without it no head is right


@dataclass(frozen=True)
class Case:
    """Bytes after the preface and SETTINGS, and what must be seen for them."""

    name: str
    data: bytes
    expect: frozenset[str]
    hello: bytes = f.hello()


def survives(name: str, data: bytes, *seen: str) -> Case:
    """Make a case whose connection goes on."""
    return Case(name, data + STILL, frozenset({*seen, "99: 200"}))


def ends(name: str, data: bytes, code: int, hello: bytes = f.hello()) -> Case:
    """Make a case whose connection ends with a GOAWAY."""
    return Case(name, data, frozenset({f"goaway {code}", "closed"}), hello)


def bad_head(name: str, *fields: f.Header, status: int = 400) -> Case:
    """Make a case of a malformed head: an answer, and the connection goes on."""
    if not any(field in {b":authority", b"host"} for field, _ in fields):
        fields = (AUTHORITY, *fields)
    return survives(name, f.headers(1, fields), f"1: {status}")


MALFORMED = [
    bad_head("no :path", *FIELDS[:2]),
    bad_head("no :method", *FIELDS[1:]),
    bad_head("no :scheme", FIELDS[0], FIELDS[2]),
    bad_head("two :path", *FIELDS, FIELDS[2]),
    bad_head("an empty :path", *FIELDS[:2], (b":path", b"")),
    bad_head("a :path with a high byte", *FIELDS[:2], (b":path", b"/caf\xc3\xa9")),
    bad_head("a :path without a slash", *FIELDS[:2], (b":path", b"stream")),
    bad_head("an odd method", (b":method", b"G T"), *FIELDS[1:]),
    bad_head("a high byte in the method", (b":method", b"G\xffT"), *FIELDS[1:]),
    bad_head("lower case", (b":method", b"head"), *FIELDS[1:], status=501),
    bad_head("CONNECT", (b":method", b"CONNECT"), (b":authority", b"a"), status=501),
    bad_head("CONNECT with a path", (b":method", b"CONNECT"), *FIELDS[1:], status=501),
    bad_head(
        "an extended CONNECT",
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        *FIELDS[1:],
        status=501,
    ),
    bad_head("an upper-case name", *FIELDS, (b"X-Upper", b"y")),
    bad_head("an empty name", *FIELDS, (b"", b"y")),
    bad_head("a name with a space", *FIELDS, (b"a b", b"y")),
    bad_head("a line break in a value", *FIELDS, (b"x", b"a\r\nb: c")),
    bad_head("a NUL in a value", *FIELDS, (b"x", b"a\x00")),
    bad_head("a connection field", *FIELDS, (b"connection", b"keep-alive")),
    bad_head("a transfer coding", *FIELDS, (b"transfer-encoding", b"chunked")),
    bad_head("te: gzip", *FIELDS, (b"te", b"gzip")),
    bad_head("a pseudo-field at the end", FIELDS[0], (b"x", b"y"), *FIELDS[1:]),
    bad_head("an unknown pseudo-field", *FIELDS, (b":foo", b"bar")),
    bad_head("a response's pseudo-field", *FIELDS, (b":status", b"200")),
    survives("no host", f.headers(1, FIELDS), "1: 400"),
    bad_head("two hosts", *FIELDS, (b":authority", b"a"), (b"host", b"b")),
    bad_head(
        "500 fields", *FIELDS, *[(b"x%d" % n, b"") for n in range(500)], status=431
    ),
]

FRAMES = [
    ends("rubbish after the preface", b"\xff" * 64, SIZE),
    ends("HEADERS first, not SETTINGS", f.request() + f.data(0), PROTOCOL, f.PREFACE),
    ends("a frame that says it has 16 MiB", b"\xff\xff\xff\0\0\0\0\0\1", SIZE),
    ends("DATA on stream 0", f.data(0, b"x"), PROTOCOL),
    ends("HEADERS on stream 0", f.request(0), PROTOCOL),
    ends("a stream with an even number", f.request(2), PROTOCOL),
    ends("a stream number that goes back", f.request(5) + f.request(3), PROTOCOL),
    ends("DATA on an idle stream", f.data(7, b"x"), PROTOCOL),
    ends("a frame of 20 KB", f.request(end=False) + f.data(1, b"x" * 20_000), SIZE),
    ends("SETTINGS on a stream", f.frame(4, 0, 1), PROTOCOL),
    ends("SETTINGS of 5 bytes", f.frame(4, 0, 0, b"12345"), SIZE),
    ends("a SETTINGS ACK with a payload", f.frame(4, 1, 0, bytes(6)), PROTOCOL),
    ends("ENABLE_PUSH 2", f.frame(4, 0, 0, b"\0\x02\0\0\0\x02"), PROTOCOL),
    ends("a window of 2^31", f.frame(4, 0, 0, b"\0\x04\x80\0\0\0"), FLOW),
    ends("a frame size of 1", f.frame(4, 0, 0, b"\0\x05\0\0\0\x01"), PROTOCOL),
    survives("an unknown setting", f.frame(4, 0, 0, b"\xab\xcd\0\0\0\x01")),
    ends("PING of 7 bytes", f.frame(6, 0, 0, bytes(7)), SIZE),
    ends("PING on a stream", f.frame(6, 0, 1, bytes(8)), PROTOCOL),
    ends("connection credit of 0", f.credit(0, 0), PROTOCOL),
    ends("too much connection credit", f.credit(0, 2**31 - 1), FLOW),
    ends("credit of 3 bytes", f.frame(8, 0, 0, bytes(3)), SIZE),
    ends("credit for an idle stream", f.credit(7, 5), PROTOCOL),
    ends("RST_STREAM of an idle stream", f.reset(7), PROTOCOL),
    ends("RST_STREAM of 3 bytes", f.request() + f.frame(3, 0, 1, bytes(3)), SIZE),
    ends("PUSH_PROMISE", f.request() + f.frame(5, 4, 1, bytes(4)), PROTOCOL),
    ends("CONTINUATION of nothing", f.frame(9, 4, 1, b"x"), PROTOCOL),
    ends("a head that another frame breaks", f.frame(1, 1, 1) + f.data(1), PROTOCOL),
    ends(
        "CONTINUATION without end",
        f.frame(1, 0, 1) + f.frame(9, 0, 1, b"x") * 100,
        PROTOCOL,
    ),
    ends("no HPACK", f.frame(1, 5, 1, b"\xff" * 20), PROTOCOL),
    ends("an HPACK index out of range", f.frame(1, 5, 1, b"\xfe"), PROTOCOL),
    ends("an HPACK table too large", f.frame(1, 5, 1, b"\x3f\xe1\xff\x03"), PROTOCOL),
    ends(
        "padding longer than the frame",
        f.request(end=False) + f.frame(0, 8, 1, b"\xff"),
        PROTOCOL,
    ),
    ends(
        "trailers that do not end",
        f.request(end=False) + f.headers(1, ((b"x", b"y"),), end=False),
        PROTOCOL,
    ),
    survives("an unknown frame", f.frame(0xFA, 0xFF, 1, b"anything")),
    survives("the reserved bit", f.frame(6, 0, 0, bytes(8)) + f.frame(0xFA, 0, 2**31)),
    survives(
        "a PRIORITY that depends on itself",
        f.request() + f.frame(2, 0, 3, b"\0\0\0\5\1"),
        "1: 200",
    ),
]

FLOODS = [
    survives(
        "PRIORITY for 3000 idle streams",
        b"".join(f.frame(2, 0, 101 + 2 * n, bytes(4) + b"\1") for n in range(3000)),
    ),
    ends("20000 PING", f.frame(6, 0, 0, bytes(8)) * 20_000, CALM),
    ends("20000 SETTINGS", f.frame(4, 0, 0) * 20_000, CALM),
    ends(
        "20000 empty DATA",
        f.request(path=b"/echo", end=False) + f.data(1) * 20_000,
        CALM,
    ),
    ends(
        "20000 credits for a stream that is gone",
        f.request() + f.reset(1) + f.credit(1, 1) * 20_000,
        CALM,
    ),
    ends(
        "rapid reset",
        b"".join(f.request(n) + f.reset(n) for n in range(1, 2400, 2)),
        CALM,
    ),
    survives("two streams", f.request() + f.request(3), "1: 200", "3: 200"),
    ends(
        "1000 streams, none waited for",
        b"".join(f.request(n, b"/stream?n=9&every=1") for n in range(1, 2000, 2)),
        PROTOCOL,
    ),
    Case(
        "200 streams at once",
        b"".join(f.request(n, b"/stream?n=2&every=0.1") for n in range(1, 400, 2)),
        frozenset({"1: 200", "255: 200", "reset 7"}),
    ),
]

STREAMS = [
    survives(
        "a HEAD of a stream without end",
        f.request(1, b"/flood", method=b"HEAD") + f.request(3, b"/ok"),
        "1: 200",
        "3: 200",
    ),
    survives("a bad head, reset at once", f.headers(1, FIELDS[:2]) + f.reset(1)),
    survives(
        "a body for a stream that refused it",
        f.request(1, b"/unread", method=b"POST", end=False)
        + f.data(1, b"x" * 16_384) * 2,
        "1: 413",
    ),
    survives("the application fails", f.request(1, b"/boom"), "1: 500"),
    survives(
        "the application fails midway",
        f.request(1, b"/boom-midway"),
        "1: 200",
        "reset 2",
    ),
    survives(
        "reset before the answer", f.request(1, b"/stream?n=9&every=1") + f.reset(1)
    ),
    survives("a HEAD", f.request(1, method=b"HEAD"), "1: 200"),
    survives(
        "trailers",
        f.request(1, b"/echo", end=False) + f.headers(1, ((b"x", b"y"),)),
        "1: 200",
    ),
    survives("an absolute target", f.request(1, b"http://t/ok"), "1: 200"),
    Case("a GOAWAY", f.frame(7, 0, 0, bytes(8)), frozenset({"closed"})),
    Case("the preface, half", b"", frozenset({"closed"}), f.PREFACE[:20] + b"XXXXXXXX"),
]

CASES = [*MALFORMED, *FRAMES, *FLOODS, *STREAMS]

"""Hostile and odd HTTP/2, and what must come back (RFC 9113).

`expect` is a set of things seen: `goaway N`, `reset N` of any stream, `STREAM: STATUS`,
or `closed`. A case that expects no GOAWAY also shows that the connection still serves:
its bytes end with a request on stream 99, whose status must be 200.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.server import frames as f

STILL = f.request(99, b"/ok")
PROTOCOL, FLOW, CLOSED, SIZE, HPACK, CALM = 1, 3, 5, 6, 9, 11
FIELDS = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/ok"))
# In HPACK (RFC 7541): a head of 100 bytes, a field of 4 kB, and one byte that means
# that field again.
SHORT_HEAD = b"\x82\x86\x84\x01\x01t\0\1a\x5a" + 90 * b"a"
LONG_FIELD = b"\x40\x01x\x7f\xa1\x1e" + 4000 * b"y"
AGAIN = b"\xbe"
AUTHORITY = (b":authority", b"t")  # without it no head is right


@dataclass(frozen=True)
class Case:
    """Bytes after the preface and SETTINGS, and what must be seen for them."""

    name: str
    data: bytes
    expect: frozenset[str]
    hello: bytes = f.hello()


def survives(name: str, data: bytes, *seen: str) -> Case:
    """Make a case whose connection goes on, unless it is said to close."""
    still = set() if "goaway 0" in seen else {"99: 200"}
    return Case(name, data + STILL, frozenset({*seen, *still}))


def ends(name: str, data: bytes, code: int, hello: bytes = f.hello()) -> Case:
    """Make a case whose connection ends with a GOAWAY."""
    return Case(name, data, frozenset({f"goaway {code}", "closed"}), hello)


def bad_head(name: str, *fields: f.Header, status: int = 400) -> Case:
    """Make a case of a malformed head: an answer, a reset, and the connection goes on.

    What is well-formed and not done here (501), or too large (431), is not reset.
    """
    if not any(field in {b":authority", b"host"} for field, _ in fields):
        fields = (AUTHORITY, *fields)
    reset = (f"reset {PROTOCOL}",) if status == 400 else ()
    return survives(name, f.headers(1, fields), f"1: {status}", *reset)


def beside(name: str, data: bytes, *seen: str) -> Case:
    """Make a case of stream 3's that cuts nothing off stream 1, which goes on."""
    stream = f.request(1, b"/stream?n=9&every=0.01")
    return survives(name, stream + data, *seen, "1: 200", "1: ended")


def post(
    length: bytes | None, *parts: bytes, fields: tuple[f.Header, ...] = ()
) -> bytes:
    """Return a request on stream 3 that says a length, and its body in parts."""
    extra = fields if length is None else ((b"content-length", length), *fields)
    head = f.request(3, b"/echo", method=b"POST", extra=extra, end=not parts)
    return head + b"".join(
        f.data(3, part, end=number == len(parts))
        for number, part in enumerate(parts, 1)
    )


def bad_length(name: str, length: bytes, *parts: bytes) -> Case:
    """Make a case of a body that is not as long as its request says, if it says."""
    return beside(name, post(length, *parts), "3: 400", f"reset {PROTOCOL}")


def bad_trailers(name: str, *fields: f.Header) -> Case:
    """Make a case of malformed trailers."""
    data = f.request(3, b"/echo", end=False) + f.data(3, b"hi") + f.headers(3, fields)
    return beside(name, data, "3: 400", f"reset {PROTOCOL}")


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
    survives("no host", f.headers(1, FIELDS), "1: 400", f"reset {PROTOCOL}"),
    bad_head("an :authority with userinfo", (b":authority", b"u:p@t"), *FIELDS),
    bad_head("an :authority that is a path", (b":authority", b"t/x"), *FIELDS),
    bad_head("an absolute :path", *FIELDS[:2], (b":path", b"http://t/ok")),
    bad_head("a :path with a space", *FIELDS[:2], (b":path", b"/a b")),
    bad_head("an asterisk for GET", *FIELDS[:2], (b":path", b"*")),
    bad_head("an informational :status", *FIELDS, (b":status", b"100")),
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
    ends("no HPACK", f.frame(1, 5, 1, b"\xff" * 20), HPACK),
    ends("an HPACK index out of range", f.frame(1, 5, 1, b"\xfe"), HPACK),
    ends("an HPACK table too large", f.frame(1, 5, 1, b"\x3f\xe1\xff\x03"), HPACK),
    ends("PRIORITY on stream 0", f.frame(2, 0, 0, bytes(5)), PROTOCOL),
    ends("credit of 0 for an idle stream", f.credit(7, 0), PROTOCOL),
    ends("credit of 0 within a head", f.frame(1, 1, 1) + f.credit(1, 0), PROTOCOL),
    ends(
        "padding longer than the frame",
        f.request(end=False) + f.frame(0, 8, 1, b"\xff"),
        PROTOCOL,
    ),
    survives("an unknown frame", f.frame(0xFA, 0xFF, 1, b"anything")),
    survives("the reserved bit", f.frame(6, 0, 0, bytes(8)) + f.frame(0xFA, 0, 2**31)),
    survives("the reserved bit of credit", f.request() + f.credit(1, 2**31 + 1)),
]

MESSAGES = [
    bad_length("a body shorter than said", b"9", b"hi"),
    bad_length("a body longer than said", b"1", b"h", b"i"),
    bad_length("no body although a length is said", b"9"),
    bad_length("an empty body although a length is said", b"9", b""),
    bad_length("a length that is no number", b"abc", b"hi"),
    bad_length("a negative length", b"-1", b"hi"),
    bad_length("a length with a plus", b"+2", b"hi"),
    bad_length("a length with an underscore", b"1_0", b"0123456789"),
    bad_length("an empty length", b"", b"hi"),
    bad_length("a length of 5000 digits", b"9" * 5000, b"hi"),
    bad_length("a huge length", b"9" * 18, b"hi"),
    bad_length("a list of lengths", b"2, 2", b"hi"),
    beside(
        "two lengths",
        post(b"2", b"hi", fields=((b"content-length", b"2"),)),
        "3: 400",
        f"reset {PROTOCOL}",
    ),
    beside(
        "a body shorter than said, and trailers",
        f.request(3, b"/echo", extra=((b"content-length", b"9"),), end=False)
        + f.data(3, b"hi")
        + f.headers(3, ((b"x", b"y"),)),
        "3: 400",
        f"reset {PROTOCOL}",
    ),
    beside("a body as long as said", post(b"2", b"h", b"i"), "3: 200", "3: ended"),
    beside("a length of 0 and no body", post(b"0"), "3: 200", "3: ended"),
    beside(
        "trailers that do not end",
        f.request(3, b"/echo", end=False) + f.headers(3, ((b"x", b"y"),), end=False),
        f"reset {PROTOCOL}",
    ),
    beside(
        "a head behind the end",
        f.request(3, b"/stream?n=9&every=1") + f.headers(3, ((b"x", b"y"),)),
        f"reset {CLOSED}",
    ),
    beside(
        "credit of 0",
        f.request(3, b"/stream?n=9&every=1") + f.credit(3, 0),
        f"reset {PROTOCOL}",
    ),
    beside(
        "credit of 0 with the reserved bit",
        f.request(3, b"/stream?n=9&every=1") + f.credit(3, 2**31),
        f"reset {PROTOCOL}",
    ),
    beside(
        "too much credit",
        f.request(3, b"/stream?n=9&every=1") + f.credit(3, 2**31 - 1),
        f"reset {FLOW}",
    ),
    beside(
        "a head that depends on itself",
        f.depending(3, on=3),
        f"reset {PROTOCOL}",
    ),
    beside(
        "a PRIORITY that depends on itself",
        f.request(3, b"/stream?n=9&every=1") + f.frame(2, 0, 3, b"\0\0\0\3\1"),
        f"reset {PROTOCOL}",
    ),
    survives(
        "a PRIORITY that depends on itself, before any stream",
        f.frame(2, 0, 1, b"\0\0\0\1\1"),
        f"reset {PROTOCOL}",
    ),
    beside(
        "a PRIORITY of an idle stream that depends on itself",
        f.frame(2, 0, 5, b"\0\0\0\5\1"),
        f"reset {PROTOCOL}",
    ),
    *(
        beside(
            f"a PRIORITY of {size} bytes",
            f.request(3, b"/stream?n=9&every=1") + f.frame(2, 0, 3, bytes(size)),
            f"reset {SIZE}",
        )
        for size in (0, 4, 6)
    ),
    bad_trailers("a pseudo-field in trailers", (b":path", b"/")),
    bad_trailers(
        "a pseudo-field behind others in trailers", (b"x", b"y"), (b":x", b"")
    ),
    bad_trailers("a :status in trailers", (b":status", b"200")),
    bad_trailers("an upper-case name in trailers", (b"X-Upper", b"y")),
    bad_trailers("an empty name in trailers", (b"", b"y")),
    bad_trailers("a name with a space in trailers", (b"a b", b"y")),
    bad_trailers("a name with a colon in trailers", (b"a:b", b"y")),
    bad_trailers("a line break in trailers", (b"x", b"a\r\nb: c")),
    bad_trailers("a NUL in trailers", (b"x", b"a\x00")),
    bad_trailers("a space first in a trailer's value", (b"x", b" y")),
    bad_trailers("a connection field in trailers", (b"connection", b"close")),
    bad_trailers("a transfer coding in trailers", (b"transfer-encoding", b"chunked")),
    bad_trailers("te: gzip in trailers", (b"te", b"gzip")),
    beside(
        "trailers of 500 fields",
        f.request(3, b"/echo", end=False)
        + f.headers(3, tuple((b"x%d" % n, b"") for n in range(500))),
        "3: 431",
    ),
    beside(
        "100-continue",
        f.request(3, b"/echo", extra=((b"expect", b"100-continue"),), end=False)
        + f.data(3, b"hi", end=True),
        "3: 100",
        "3: 200",
    ),
    beside(
        "a GOAWAY with streams that live",
        f.request(3, b"/stream?n=3&every=0.01") + f.frame(7, 0, 0, bytes(8)),
        "3: ended",
        "goaway 0",
        "reset 7",  # of stream 99, which comes behind it
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
        "20000 DATA of one byte",
        f.request(path=b"/echo", end=False) + f.data(1, b"x") * 20_000,
        CALM,
    ),
    ends(
        "20000 credits of one byte",
        f.request(path=b"/stream?n=9&every=1") + f.credit(1, 1) * 20_000,
        CALM,
    ),
    ends(
        "1000 heads too large",
        f.frame(1, 5, 1, SHORT_HEAD + LONG_FIELD)
        + b"".join(f.frame(1, 5, n, SHORT_HEAD + 5 * AGAIN) for n in range(3, 2000, 2)),
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
    Case("a GOAWAY", f.frame(7, 0, 0, bytes(8)), frozenset({"closed"})),
    Case(
        "a GOAWAY behind which the last stream ends",
        f.request(1, b"/stream?n=3&every=0.01") + f.frame(7, 0, 0, bytes(8)),
        frozenset({"1: 200", "1: ended", "closed"}),
    ),
    Case(
        "a GOAWAY with an error",
        f.request(1, b"/stream?n=9&every=9") + f.frame(7, 0, 0, bytes(7) + b"\1"),
        frozenset({"closed"}),
    ),
    Case("the preface, half", b"", frozenset({"closed"}), f.PREFACE[:20] + b"XXXXXXXX"),
]

CASES = [*MALFORMED, *FRAMES, *MESSAGES, *FLOODS, *STREAMS]

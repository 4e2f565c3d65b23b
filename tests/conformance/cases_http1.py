"""Hostile and odd HTTP/1.1, and the statuses that must come back (RFC 9112).

A last status of 400 or more must also be the end of the connection.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.server.client import get

CRLF = b"\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: test\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HOST = b"GET /ok HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n"
CLOSE = "Connection: close"
INVALID_HOSTS = (b"a b", b"u@t", b"t/x", b"t?x", b"t:80:90", b"t:x", b"[::1", b"\xe9")
CLIENT_HELLO = bytes.fromhex("16030100a5010000a10303") + bytes(160)


@dataclass(frozen=True)
class Case:
    """Bytes, and the statuses of the answers; `leave` is how the client ends."""

    name: str
    data: bytes
    statuses: tuple[int, ...]
    leave: str = "wait"


CASES = [
    Case("random bytes", bytes(range(256)) + CRLF + CRLF, (400,)),
    Case("NUL bytes", bytes(300) + CRLF + CRLF, (400,)),
    Case("a TLS ClientHello on the plain port", CLIENT_HELLO + CRLF + CRLF, (400,)),
    Case("HTTP/0.9", b"GET /" + CRLF + CRLF, (400,)),
    Case("a version from the future", get("/", version="3.7"), (505,)),
    Case("a version that is no number", get("/", version="1.x"), (400,)),
    Case(
        "bare line feeds", b"GET /ok HTTP/1.1\nHost: t\nConnection: close\n\n", (200,)
    ),
    Case("blank lines first", CRLF * 2 + get("/ok", "Connection: close"), (200,)),
    Case(
        "blank lines between two requests",
        POST + b"Content-Length: 2\r\n\r\nhi\r\n\n" + get("/ok", "Connection: close"),
        (200, 200),
    ),
    Case("a bare CR before the request", b"\r" + get("/ok"), (400,)),
    Case("HTTP/1.0", b"GET /ok HTTP/1.0\r\n\r\n", (200,)),
    Case("an HTTP/1.0 stream", get("/stream?n=2&every=0", version="1.0"), (200,)),
    Case("a method with a bracket", b"G(T / HTTP/1.1\r\nHost: t\r\n\r\n", (400,)),
    Case("a method in lower case", get("/ok").replace(b"GET", b"head"), (501,)),
    Case("a method of 20 KB", b"G" * 20_000 + get("/"), (431,)),
    Case("no Host", b"GET / HTTP/1.1\r\n\r\n", (400,)),
    Case("two Hosts", get("/", "Host: other"), (400,)),
    Case("a field without a colon", get("/", "broken"), (400,)),
    Case("a space before the colon", get("/", "Name : value"), (400,)),
    Case("an empty field name", get("/", ": value"), (400,)),
    Case(
        "a control character in a value",
        get("/", "X: a\x01", "Connection: close"),
        (200,),
    ),
    Case("a NUL in a value", get("/", "X: a\x00b"), (400,)),
    Case("a folded field", get("/ok", "X: a", " b"), (400,)),
    Case("a field folded with a tab", get("/ok", "X: a", "\tb"), (400,)),
    Case(
        "a folded transfer coding",
        POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        (400,),
    ),
    Case(
        "a body whose lines begin with blanks",
        POST + b"Connection: close\r\nContent-Length: 6\r\n\r\n\n a\n b",
        (200,),
    ),
    Case("a fold with nothing to fold", b"GET / HTTP/1.1\r\n folded\r\n\r\n", (400,)),
    Case("a length that is no number", POST + b"Content-Length: ten\r\n\r\n", (400,)),
    Case("a negative length", POST + b"Content-Length: -5\r\n\r\n", (400,)),
    Case(
        "two lengths", POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", (400,)
    ),
    Case(
        "a length and chunks",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (400,),
    ),
    Case("an unknown coding", POST + b"Transfer-Encoding: gzip\r\n\r\n", (501,)),
    Case(
        "two codings",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        (501,),
    ),
    Case("a chunk size that is no number", CHUNKED + b"zz\r\nhello\r\n", (400,)),
    Case("a chunk size of 40 digits", CHUNKED + b"f" * 40 + CRLF, (400,)),
    Case("a negative chunk size", CHUNKED + b"-1\r\n", (400,)),
    Case("a chunk longer than it says", CHUNKED + b"2\r\nhello\r\n0\r\n\r\n", (400,)),
    Case(
        "chunk extensions",
        POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'1;a;b="c d"\r\nh\r\n1;x\r\ni\r\n0;last\r\n\r\n',
        (200,),
    ),
    Case("a bare CR in a chunk extension", CHUNKED + b"1;a\rb\r\nh\r\n", (400,)),
    Case("a bare LF in a chunk extension", CHUNKED + b"1;a\nb\r\nh\r\n", (400,)),
    Case("a NUL in a chunk extension", CHUNKED + b"1;a\0b\r\nh\r\n", (400,)),
    Case(
        "a bare CR in the second chunk's extension",
        CHUNKED + b"1\r\nh\r\n1;a\rb\r\ni\r\n",
        (400,),
    ),
    Case(
        "a NUL in the last chunk's extension",
        CHUNKED + b"1\r\nh\r\n0;\0\r\n\r\n",
        (400,),
    ),
    Case("a chunk extension of 40 KB", CHUNKED + b"1;" + b"x" * 40_000, (431,)),
    Case("trailers of 40 KB", CHUNKED + b"0\r\nX: " + b"x" * 40_000, (431,)),
    Case(
        "trailers",
        POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX: y\r\n\r\n",
        (200,),
    ),
    Case("a request line of 40 KB", get("/" + "a" * 40_000), (431,)),
    Case("one field of 40 KB", get("/", "X: " + "a" * 40_000), (431,)),
    Case("5000 fields", get("/", *[f"X-{n}: y" for n in range(5000)]), (431,)),
    Case("a head that never ends", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 9000, (431,)),
    Case("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", (501,)),
    Case("a target without a slash", get("stream"), (400,)),
    Case("a target that is a query", get("?x=1"), (400,)),
    Case("a target with a high byte", b"GET /\xff HTTP/1.1\r\nHost: t\r\n\r\n", (400,)),
    Case("an absolute target", get("http://t/ok", "Connection: close"), (200,)),
    Case("an absolute target without a path", get("http://t?x", CLOSE), (200,)),
    Case("an absolute target in capitals", get("HTTPS://t:1/ok", CLOSE), (200,)),
    Case("an absolute target without a host", get("http:///ok"), (400,)),
    Case("an absolute target with userinfo", get("http://u:p@t/ok"), (400,)),
    Case("an absolute target of another scheme", get("ftp://t/ok"), (400,)),
    Case("the asterisk for GET", get("*"), (400,)),
    *(
        Case(
            f"the host {host!r}", b"GET /ok HTTP/1.1\r\nHost: %b\r\n\r\n" % host, (400,)
        )
        for host in INVALID_HOSTS
    ),
    Case("an IPv6 host", HOST % b"[::1]:8080", (200,)),
    Case("a host with a port", HOST % b"example.com:8080", (200,)),
    Case("an empty host", HOST % b"", (200,)),
    Case(
        "the asterisk",
        b"OPTIONS * HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
        (200,),
    ),
    Case("a path that is no UTF-8", get("/%ff%fe", "Connection: close"), (200,)),
    Case("a NUL in the path", get("/a%00b", "Connection: close"), (200,)),
    Case(
        "a WebSocket that is not spoken here",
        get("/ok", "Upgrade: websocket", "Connection: upgrade, close"),
        (200,),
    ),
    Case(
        "an upgrade to h2c",
        get("/ok", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk", "Connection: close"),
        (200,),
    ),
    Case("almost the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", (505,)),
    Case(
        "100 requests at once",
        get("/ok") * 99 + get("/ok", "Connection: close"),
        (200,) * 100,
    ),
    Case("a good request, then rubbish", get("/ok") + b"\x00\r\n\r\n", (200, 400)),
    Case(
        "a body that goes on",
        POST + b"Content-Length: 2\r\n\r\nhi there\r\n\r\n",
        (200, 400),
    ),
    Case(
        "more bytes behind Connection: close",
        get("/ok", "Connection: close") + b"\x00 rubbish",
        (200,),
    ),
    Case(
        "a request behind Connection: close",
        get("/ok", "Connection: close") + get("/ok"),
        (200,),
    ),
    Case(
        "a request behind a body with Connection: close",
        POST + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi" + get("/ok"),
        (200,),
    ),
    Case("a request behind one of HTTP/1.0", get("/ok", version="1.0") * 2, (200,)),
    Case(
        "100-continue",
        POST
        + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        (100, 200),
    ),
    Case(
        "a body sent although it was refused",
        b"POST /unread HTTP/1.1\r\nHost: t\r\nContent-Length: 300000\r\n\r\n"
        + b"x" * 300_000,
        (413,),
    ),
    Case("the application fails", get("/boom"), (500,)),
    Case("the application fails midway", get("/boom-midway"), (200,), leave="cut"),
    Case("the end within a head", b"GET / HT", (), leave="shut"),
    Case(
        "the end within a body", POST + b"Content-Length: 9\r\n\r\nhi", (), leave="shut"
    ),
    Case(
        "a reset within a body",
        POST + b"Content-Length: 9\r\n\r\nhi",
        (),
        leave="reset",
    ),
    Case("a reset within a stream", get("/flood"), (), leave="reset"),
    Case(
        "a HEAD of a stream without end",
        b"HEAD /flood HTTP/1.1\r\nHost: t\r\n\r\n" + get("/ok", "Connection: close"),
        (200, 200),
    ),
    Case("nothing at all", b"", (), leave="shut"),
]

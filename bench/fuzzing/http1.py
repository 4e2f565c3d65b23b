"""Random HTTP/1.1: requests from a loose grammar, then damaged."""

from __future__ import annotations

from random import Random
from typing import Final

METHODS: Final = [
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"OPTIONS",
    b"CONNECT",
    b"G\0T",
    b"",
]
TARGETS: Final = [
    b"/ok",
    b"/echo",
    b"/unread",
    b"/stream?n=3&every=0",
    b"/stream?n=2&every=0.05",
    b"/flood",
    b"*",
    b"http://t/ok",
    b"/%ff%00",
    b"/\xff",
    b"?",
    b"/" + b"a" * 9000,
]
VERSIONS: Final = [b"HTTP/1.1"] * 9 + [
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/1.9",
    b"HTTP",
    b"",
]
FIELDS: Final = [
    b"Host: t",
    b"Host: t",
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: -1",
    b"Content-Length: 5, 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Expect: 100-continue",
    b"Connection: close",
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABk",
    b"Sec-WebSocket-Key: x",
    b"X: " + b"y" * 3000,
    b"X : y",
    b" folded",
    b": empty",
    b"X: \xff\x01",
    b"",
]
BODIES: Final = [
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"zz\r\n",
    b"-1\r\n",
    b"ffffffffffffffffffffff\r\n",
    b"5\r\nhel",
    b"\0" * 2000,
    b"x" * 200_000,
]


def session(random: Random) -> list[bytes]:
    """Return what one client says, in pieces."""
    said = b"".join(_request(random) for _ in range(random.randint(1, 4)))
    if random.random() < 0.4:
        said = damage(random, said)
    return pieces(random, said)


def _request(random: Random) -> bytes:
    line = b" ".join(
        [random.choice(METHODS[:4] * 4 + METHODS), random.choice(TARGETS),
         random.choice(VERSIONS)]
    )  # fmt: skip
    fields = [b"Host: t"] if random.random() < 0.8 else []
    fields += random.sample(FIELDS, random.randint(0, 5))
    newline = b"\r\n" if random.random() < 0.95 else b"\n"
    return newline.join([line, *fields, b"", b""]) + random.choice(BODIES)


def damage(random: Random, data: bytes) -> bytes:
    """Flip, drop, repeat or insert bytes at a few places."""
    broken = bytearray(data)
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(broken) + 1)
        match random.randrange(4):
            case 0 if at < len(broken):
                broken[at] ^= 1 << random.randrange(8)
            case 1:
                del broken[at : at + random.randint(1, 9)]
            case 2:
                broken[at:at] = broken[at : at + random.randint(1, 40)]
            case _:
                broken[at:at] = random.randbytes(random.randint(1, 9))
    return bytes(broken)


def pieces(random: Random, data: bytes) -> list[bytes]:
    """Cut data where it hurts, or not at all."""
    if random.random() < 0.4 or not data:
        return [data]
    cuts = sorted(random.randrange(len(data)) for _ in range(random.randint(1, 5)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

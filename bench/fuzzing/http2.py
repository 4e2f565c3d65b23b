"""Random HTTP/2: frames that mostly make sense, in orders that mostly do not."""

from __future__ import annotations

from random import Random
from typing import Final

from hpack import Encoder

from bench.fuzzing.http1 import TARGETS, damage, pieces

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, CREDIT, CONTINUATION = (
    range(10)
)
FIELDS: Final = [
    (b":method", b"CONNECT"),
    (b":path", b"/again"),
    (b":protocol", b"websocket"),
    (b":status", b"200"),
    (b":unknown", b"x"),
    (b"", b"empty"),
    (b"Upper", b"x"),
    (b"connection", b"close"),
    (b"te", b"trailers"),
    (b"content-length", b"5"),
    (b"content-length", b"five"),
    (b"transfer-encoding", b"chunked"),
    (b"host", b"other"),
    (b"cookie", b"a=b"),
    (b"x", b"y" * 4000),
    (b"x", b"\xff\0\r\n"),
]


def session(random: Random) -> list[bytes]:
    """Return what one client says, in pieces."""
    said = PREFACE + frame(
        SETTINGS, 0, 0, _settings(random) if _may(random, 0.3) else b""
    )
    streams = [1]
    for _ in range(random.randint(1, 60)):
        said += _frame(random, streams)
    if _may(random, 0.15):
        said = said[:60] + damage(random, said[60:])
    return pieces(random, said)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame (RFC 9113 4.1)."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def _frame(random: Random, streams: list[int]) -> bytes:
    """Return one frame, or one request; opens streams as it goes."""
    stream = random.choice(streams) if _may(random, 0.9) else random.randrange(2**31)
    match random.randrange(14):
        case 0 | 1 | 2 | 3:
            streams.append(max(streams) + 2)
            flags = 0x4 | (0x1 if _may(random, 0.7) else 0)
            return frame(HEADERS, flags, streams[-1], _block(random))
        case 4 | 5:
            body = b"x" * random.choice([0, 1, 100, 16_384])
            return frame(DATA, random.randrange(2), stream, body)
        case 6:
            increment = random.choice([0, 1, 1000, 2**31 - 1, 2**31 + 5])
            at = random.choice([0, stream])
            return frame(CREDIT, 0, at, increment.to_bytes(4, "big"))
        case 7:
            return frame(RESET, 0, stream, random.randrange(20).to_bytes(4, "big"))
        case 8:
            return frame(PRIORITY, 0, stream, random.randbytes(5))
        case 9:
            return frame(SETTINGS, random.randrange(2), 0, _settings(random))
        case 10:
            return frame(PING, random.randrange(2), 0, bytes(8))
        case 11 if _may(random, 0.1):
            return frame(GOAWAY, 0, 0, bytes(8))
        case 12 if _may(random, 0.2):
            return frame(CONTINUATION, 4, stream, _block(random))
        case _ if _may(random, 0.15):
            size = random.choice([0, 3, 4, 5, 8, 60])
            payload = random.randbytes(size)
            return frame(random.randrange(12), random.randrange(256), stream, payload)
    return b""


def _block(random: Random) -> bytes:
    """Return a header block: most often a good request, sometimes not even HPACK."""
    if _may(random, 0.03):
        return random.randbytes(random.randint(0, 40))
    fields = [
        (b":method", random.choice([b"GET", b"POST", b"HEAD", b"X Y"])),
        (b":scheme", b"http"),
        (b":authority", b"t"),
        (b":path", random.choice(TARGETS)),
    ]
    if _may(random, 0.2):
        del fields[random.randrange(4)]
    if _may(random, 0.3):
        fields += random.sample(FIELDS, random.randint(1, 3))
    if _may(random, 0.05):
        random.shuffle(fields)
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder.encode([(n, v, True) for n, v in fields], huffman=_may(random, 0.5))


def _settings(random: Random) -> bytes:
    value = random.choice([0, 1, 100, 65_535, 16_384, 2**24 - 1, 2**31 - 1, 2**32 - 1])
    return random.randrange(10).to_bytes(2, "big") + value.to_bytes(4, "big")


def _may(random: Random, probability: float) -> bool:
    return random.random() < probability

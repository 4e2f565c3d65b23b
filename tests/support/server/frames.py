"""HTTP/2 by hand: frames as bytes, and bytes as a list of what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame from the server: its kind, its stream, and what matters of it."""

    kind: str
    stream: int
    value: int = 0
    data: bytes = b""
    ended: bool = False


def frame(
    kind: int,
    flags: int,
    stream: int,
    payload: bytes = b"",
    *,
    length: int | None = None,
) -> bytes:
    """Return one frame, well-formed or not (RFC 9113 4.1)."""
    size = len(payload) if length is None else length
    head = size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def hello(**settings: int) -> bytes:
    """Return the preface and SETTINGS; names as in `SettingsFrame`."""
    values = {getattr(SettingsFrame, name): value for name, value in settings.items()}
    return PREFACE + SettingsFrame(0, settings=values).serialize()


def request(
    stream: int = 1,
    path: bytes = b"/",
    *,
    method: bytes = b"GET",
    extra: tuple[Header, ...] = (),
    end: bool = True,
) -> bytes:
    """Return HEADERS that open a stream."""
    pseudo = [(b":method", method), (b":scheme", b"http"), (b":authority", b"test")]
    return headers(stream, (*pseudo, (b":path", path), *extra), end=end)


def headers(stream: int, fields: tuple[Header, ...], *, end: bool = True) -> bytes:
    """Return HEADERS with these fields; each block stands by itself (no indexing)."""
    encoder = Encoder()
    encoder.header_table_size = 0
    block = encoder.encode([(n, v, True) for n, v in fields], huffman=False)
    return frame(0x1, 0x4 | (0x1 if end else 0), stream, block)


def depending(stream: int, *, on: int) -> bytes:
    """Return HEADERS that open a stream and say which one it depends on."""
    head = request(stream)
    return frame(0x1, 0x25, stream, on.to_bytes(4, "big") + b"\0" + head[9:])


def data(stream: int, payload: bytes = b"", *, end: bool = False) -> bytes:
    """Return DATA."""
    return frame(0x0, 0x1 if end else 0, stream, payload)


def reset(stream: int, code: int = 8) -> bytes:
    """Return RST_STREAM."""
    return frame(0x3, 0, stream, code.to_bytes(4, "big"))


def credit(stream: int, increment: int) -> bytes:
    """Return WINDOW_UPDATE."""
    return frame(0x8, 0, stream, increment.to_bytes(4, "big"))


def parse(received: bytes) -> list[Seen]:
    """Return the complete frames in what a server has sent."""
    seen: list[Seen] = []
    decoder = Decoder()
    view = memoryview(received)
    while len(view) >= 9:
        one, length = Frame.parse_frame_header(view[:9])
        if len(view) < 9 + length:
            break
        one.parse_body(view[9 : 9 + length])
        seen.append(_seen(one, decoder))
        view = view[9 + length :]
    return seen


def _seen(one: Frame, decoder: Decoder) -> Seen:
    ended = "END_STREAM" in one.flags
    match one:
        case HeadersFrame():
            fields = dict(decoder.decode(one.data, raw=True))
            status = int(fields.get(b":status", b"0"))
            return Seen("headers", one.stream_id, status, ended=ended)
        case DataFrame():
            return Seen("data", one.stream_id, len(one.data), one.data, ended)
        case RstStreamFrame():
            return Seen("reset", one.stream_id, one.error_code)
        case GoAwayFrame():
            return Seen("goaway", 0, one.error_code)
        case WindowUpdateFrame():
            return Seen("credit", one.stream_id, one.window_increment)
        case SettingsFrame():
            return Seen("settings", 0)
        case _:
            return Seen(type(one).__name__, one.stream_id)


def status(seen: list[Seen], stream: int) -> int:
    """Return a stream's response status, 0 if there is none."""
    for one in seen:
        if one.kind == "headers" and one.stream == stream:
            return one.value
    return 0


def body(seen: list[Seen], stream: int) -> bytes:
    """Return what came of a stream's body."""
    return b"".join(s.data for s in seen if s.kind == "data" and s.stream == stream)


def ended(seen: list[Seen], stream: int) -> bool:
    """Whether a stream has come to an end, or the connection has."""
    return any(
        one.kind == "goaway"
        or (one.stream == stream and (one.ended or one.kind == "reset"))
        for one in seen
    )

"""Content codings of upstream's bodies (RFC 9110, section 8.4), decoded; pure."""

from __future__ import annotations

import zlib
from typing import Final

import brotli  # type: ignore[import-untyped]

# One block decoded: compressed bytes may hold a thousand times their length.
MAX_BLOCK_BYTES: Final = 64 * 1024
DAMAGED: Final = (zlib.error, brotli.error)
_MEMBER: Final = b"\x1f"  # how each member of gzip begins


class _Gzip:
    """`gzip`, and zlib's format, which zlib tells apart by their first bytes.

    `finished`: the end of the compressed data has come. `hungry`: there is nothing more
    to return before new data comes. `feed` returns a block at most. What follows the
    end is no part of the body, unless it is one more member of gzip (RFC 1952, section
    2.2): some servers compress each event by itself.
    """

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self.hungry = True

    @property
    def finished(self) -> bool:
        return self._inner.eof

    def feed(self, data: bytes) -> bytes:
        data = self._inner.unconsumed_tail + self._inner.unused_data + data
        if self._inner.eof:
            if data[:1] != _MEMBER:
                self.hungry = True
                return b""
            self._inner = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        block = self._inner.decompress(data, MAX_BLOCK_BYTES)
        more = self._inner.unused_data[:1] == _MEMBER
        self.hungry = len(block) < MAX_BLOCK_BYTES and not more
        return block


class _Deflate(_Gzip):
    """`deflate`: zlib's format, or without its frame, as some servers send it.

    Browsers, curl and httpx read both. The frame begins with two bytes that are a
    multiple of 31, and 8 in the first one's low half (RFC 1950, section 2.2).
    """

    def __init__(self) -> None:
        super().__init__()
        self._first: bytes | None = b""

    def feed(self, data: bytes) -> bytes:
        if self._first is not None:
            data = self._first + data
            if len(data) < 2:
                self._first = data
                return b""
            self._first = None
            framed = data[0] % 16 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            if not framed and data[:1] != _MEMBER:
                self._inner = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        return super().feed(data)


class _Brotli:
    """`br`, in the same way."""

    def __init__(self) -> None:
        self._inner = brotli.Decompressor()

    @property
    def finished(self) -> bool:
        return bool(self._inner.is_finished())

    @property
    def hungry(self) -> bool:
        return bool(self._inner.can_accept_more_data())

    def feed(self, data: bytes) -> bytes:
        if self.finished and self.hungry:  # nothing belongs to it any more
            return b""
        return bytes(self._inner.process(data, output_buffer_limit=MAX_BLOCK_BYTES))


Decompressor = _Gzip | _Brotli

_KINDS: Final[dict[str, type[Decompressor]]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
}


def decompressor_of(coding: str) -> Decompressor:
    """Return what decodes a body (`Content-Encoding`).

    :raises LookupError: when the coding is not known here.
    """
    coding = coding.strip().lower()
    if coding not in _KINDS:
        known = ", ".join(sorted(_KINDS))
        raise LookupError(f"expected a content coding out of {known}")
    return _KINDS[coding]()

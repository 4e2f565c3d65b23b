"""Bodies that upstream has compressed, though it was asked not to (RFC 9110, 8.4)."""

from __future__ import annotations

import zlib
from typing import Final, Protocol

import brotli  # type: ignore[import-untyped]
import httpx
import trio

from trio_ai_stream.upstream.bodies import Body

# One block decoded: compressed bytes may hold a thousand times their length.
MAX_BLOCK_BYTES: Final = 64 * 1024


class _Decompressor(Protocol):
    @property
    def finished(self) -> bool:
        """Whether the end of the compressed data has come."""

    @property
    def hungry(self) -> bool:
        """Whether there is nothing more to return before new data comes."""

    def feed(self, data: bytes) -> bytes:
        """Return a block at most of what `data` and what is left hold."""


class _Gzip:
    """`gzip` and `deflate`, which zlib tells apart by their first bytes."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self.hungry = True

    @property
    def finished(self) -> bool:
        return self._inner.eof

    def feed(self, data: bytes) -> bytes:
        data = self._inner.unconsumed_tail + data
        block = self._inner.decompress(data, MAX_BLOCK_BYTES)
        self.hungry = len(block) < MAX_BLOCK_BYTES
        return block


class _Brotli:
    def __init__(self) -> None:
        self._inner = brotli.Decompressor()

    @property
    def finished(self) -> bool:
        return bool(self._inner.is_finished())

    @property
    def hungry(self) -> bool:
        return bool(self._inner.can_accept_more_data())

    def feed(self, data: bytes) -> bytes:
        return bytes(self._inner.process(data, output_buffer_limit=MAX_BLOCK_BYTES))


_KINDS: Final[dict[str, type[_Gzip | _Brotli]]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Gzip,
    "br": _Brotli,
}


def decoded(body: Body, coding: str) -> Body:
    """Return `body`, decoded if `coding` (`Content-Encoding`) says that it needs it.

    :raises LookupError: when the coding is not known here.
    """
    coding = coding.strip().lower()
    if coding in {"", "identity"}:
        return body
    if coding not in _KINDS:
        known = ", ".join(sorted(_KINDS))
        raise LookupError(f"expected a content coding out of {known}")
    return _DecodedBody(body, _KINDS[coding]())


class _DecodedBody:
    """A body as it was before its compression."""

    __slots__ = ("_body", "_decompressor")

    def __init__(self, body: Body, decompressor: _Decompressor) -> None:
        self._body = body
        self._decompressor = decompressor

    @property
    def ended(self) -> bool:
        return self._body.ended and self._decompressor.hungry

    async def receive(self) -> bytes:
        """Return one block; b"" at the end.

        *Errors:* as the body within, and `httpx.DecodingError` when the bytes are not
        what they were said to be, or end too early. *Cancellation:* as within.
        """
        decompressor = self._decompressor
        while True:
            data = b""
            if decompressor.hungry:
                data = await self._body.receive()
                if not data:
                    if decompressor.finished:
                        return b""
                    raise httpx.DecodingError("the compressed body was cut off")
                if decompressor.finished:  # nothing belongs to it any more
                    continue
            else:
                await trio.lowlevel.checkpoint()
            try:
                block = decompressor.feed(data)
            except (zlib.error, brotli.error) as exc:
                self.abort()
                raise httpx.DecodingError("the compressed body is damaged") from exc
            if block:
                return block

    async def drain(self) -> bool:
        return await self._body.drain()

    def abort(self) -> None:
        self._body.abort()

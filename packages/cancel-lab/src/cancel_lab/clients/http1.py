"""A chat request over HTTP/1.1, by hand, so that it can be ended in any way."""

from __future__ import annotations

import time
from typing import Protocol

import trio

from cancel_lab.clients.chat_stream import ChatRequest, ChatStream
from cancel_lab.clients.connection import Connection, ConnectionEndedError
from cancel_lab.clients.sse import SINK_BYTES

HEAD_LIMIT = 65536  # bytes; past it the answer is not HTTP
PIPELINED = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


class HTTP1Stream(ChatStream):
    """One request on one connection, and what has been seen of its answer."""

    def __init__(
        self,
        connection: Connection,
        request: ChatRequest,
        *,
        pipelined: bool = False,
        sink: bytearray | None = None,
        sink_bytes: int = SINK_BYTES,
    ) -> None:
        """Take a fresh connection.

        ``pipelined`` sends a second request right behind the first; ``sink`` gets the
        bytes of the body, at most ``sink_bytes``, for answers that are no event stream.
        """
        super().__init__(connection, request)
        self._sink = sink
        self._sink_bytes = sink_bytes
        self._pipelined = pipelined
        self._buffer = b""
        self._body: _Body | None = None

    async def start(self) -> int:
        """Send the request and return when that began."""
        request = self._request
        lines = [f"{request.method} {request.path} HTTP/1.1"]
        lines.append(f"Host: {request.authority}")
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        lines += [f"Content-Length: {len(request.body)}", "", ""]
        data = "\r\n".join(lines).encode() + request.body
        return await self.connection.send(
            data + (PIPELINED if self._pipelined else b"")
        )

    async def read(self) -> None:
        """Read once and note what came; at the end of the answer note how it ended."""
        try:
            data = await self.connection.receive()
        except ConnectionEndedError as exc:
            self.end(cut=str(exc))
            return
        if not data:
            self.end(cut=None if self._until_close() else "closed")
            return
        try:
            self._take(data)
        except (ValueError, IndexError):
            self.end(cut=f"expected an answer of HTTP/1.1, got {data[:100]!r}")

    async def idle(self) -> None:
        """Do what a client that stopped reading does: nothing, until cancelled."""
        await trio.sleep_forever()

    def _take(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self._body is None:
            self._buffer += data
            head, separator, data = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                if len(self._buffer) > HEAD_LIMIT:
                    self.end(cut="no response head")
                return
            self._body = self._read_head(head)
        content = self._body.feed(data)
        if self._sink is not None:
            self._sink += content
            if len(self._sink) > self._sink_bytes:
                self.end(cut=f"expected at most {self._sink_bytes} bytes, got more")
                return
        elif content:
            self._parser.feed(content, now)
        if self._body.complete:
            self.end(cut=None)

    def _read_head(self, head: bytes) -> _Body:
        status, *fields = head.decode("latin-1").split("\r\n")
        self.seen.status = int(status.split(" ")[1])
        for line in fields:
            name, _, value = line.partition(":")
            self.seen.headers[name.strip().lower()] = value.strip()
        if "chunked" in self.seen.headers.get("transfer-encoding", ""):
            return _Chunked()
        length = self.seen.headers.get("content-length")
        return _Counted(None if length is None else _natural(length, 10))

    def _until_close(self) -> bool:
        return isinstance(self._body, _Counted) and self._body.left is None


def _natural(digits: str, base: int) -> int:
    """Return a number of bytes.

    :raises ValueError: it is none.
    """
    number = int(digits, base)
    if number < 0:
        raise ValueError("expected a length")
    return number


class _Body(Protocol):
    complete: bool

    def feed(self, data: bytes) -> bytes:
        """Take what came, return what of it is body."""
        ...


class _Counted:
    """A body of a known length, or (``None``) one that ends with the connection."""

    def __init__(self, left: int | None) -> None:
        self.left = left
        self.complete = left == 0

    def feed(self, data: bytes) -> bytes:
        if self.left is None:
            return data
        taken = data[: self.left]
        self.left -= len(taken)
        self.complete = self.left == 0
        return taken


class _Chunked:
    """RFC 9112, section 7.1, without extensions or trailers of interest."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # of the current chunk, its CRLF included
        self.complete = False

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        content = []
        while self._buffer and not self.complete:
            if self._left:
                part = self._buffer[: self._left]
                self._buffer = self._buffer[len(part) :]
                content.append(part[: max(0, self._left - 2)])
                self._left -= len(part)
                continue
            line, separator, rest = self._buffer.partition(b"\r\n")
            if not separator:
                if len(line) > HEAD_LIMIT:
                    raise ValueError("expected the length of a chunk")
                break
            size = _natural(line.split(b";")[0].decode("ascii"), 16)
            self._buffer = rest
            self._left = size + 2
            self.complete = size == 0
        return b"".join(content)

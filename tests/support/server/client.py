"""Raw clients: they say any bytes, and read what comes until a condition or the end."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any, Self

import trio

from tests.support.server import frames


class Client:
    """One TCP connection to a server under test."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.received = b""
        self.ended = False

    @classmethod
    async def connect(cls, port: int, *, receive_bytes: int | None = None) -> Client:
        """Connect to loopback, with a small receive buffer if asked."""
        sock = trio.socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        try:
            await sock.connect(("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        return cls(trio.SocketStream(sock))

    async def say(self, data: bytes) -> None:
        """Send bytes; a server that has already closed is no error."""
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            self.ended = True

    async def read_until(self, done: Callable[[bytes], bool]) -> bytes:
        """Return all received so far, once `done` of it or at the end."""
        while not done(self.received) and not self.ended:
            try:
                data = await self.stream.receive_some(65_536)
            except trio.BrokenResourceError:
                data = b""
            self.received += data
            self.ended = not data
        return self.received

    async def read_to_end(self) -> bytes:
        """Return all that comes until the server closes."""
        return await self.read_until(lambda _: False)

    async def read_to_end_of_stream(self) -> bytes:
        """Return all that comes until a chunked body ends, or the connection does."""
        return await self.read_until(lambda data: data.endswith(b"0\r\n\r\n"))

    async def frames_until(
        self, done: Callable[[list[frames.Seen]], bool]
    ) -> list[frames.Seen]:
        """Return the HTTP/2 frames received, once `done` of them or at the end."""
        await self.read_until(lambda data: done(frames.parse(data)))
        return frames.parse(self.received)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stream.socket.close()

    def reset(self) -> None:
        """Close the connection with a RST."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.stream.socket.close()


def get(target: str, *headers: str, version: str = "1.1") -> bytes:
    """Return a GET request."""
    lines = [f"GET {target} HTTP/{version}", "Host: test", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


async def ask(port: int, request: bytes) -> bytes:
    """Return the whole answer to one request on a connection of its own."""
    async with await Client.connect(port) as client:
        await client.say(request)
        return await client.read_to_end()


async def info(port: int) -> dict[str, Any]:
    """Return what the application under test says of itself."""
    answer = await ask(port, get("/info", "Connection: close"))
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def status_of(answer: bytes) -> int:
    """Return the status of an HTTP/1.1 answer, 0 if there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


def events_of(answer: bytes) -> list[bytes]:
    """Return the data of the server-sent events in an answer, in order."""
    return [
        line.removeprefix(b"data: ")
        for line in answer.replace(b"\r\n", b"\n").split(b"\n")
        if line.startswith(b"data: ")
    ]

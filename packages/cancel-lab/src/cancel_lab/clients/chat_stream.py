"""A chat request under way, over whatever transport."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from cancel_lab.clients.acts import Act
from cancel_lab.clients.connection import Connection
from cancel_lab.clients.sse import EventParser, Seen


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A chat request, whatever carries it."""

    path: str
    body: bytes
    method: str = "POST"
    authority: str = "localhost"  # the Host field; some servers want the port in it
    headers: Mapping[str, str] = field(default_factory=dict)


class ChatStream(ABC):
    """One request, and what has been seen of its answer."""

    def __init__(self, connection: Connection, request: ChatRequest) -> None:
        """Nothing is sent before ``start``."""
        self.connection = connection
        self.seen = Seen()
        self._request = request
        self._parser = EventParser(self.seen)

    @abstractmethod
    async def start(self) -> int:
        """Send the request and return when that began."""

    @abstractmethod
    async def read(self) -> None:
        """Read once, and note what came."""

    @abstractmethod
    async def idle(self) -> None:
        """Go on as a client that stopped reading; ends when the peer ends it."""

    async def read_tokens(self, count: int) -> None:
        """Read until ``count`` tokens were seen or the answer is over."""
        while self.seen.tokens < count and not self.seen.over:
            await self.read()

    async def read_to_end(self) -> None:
        """Read until the answer is over."""
        while not self.seen.over:
            await self.read()

    async def act(self, act: Act) -> int:
        """End or stop taking the stream; return when, just before the kernel is told.

        Errors: ConnectionEndedError if the peer was gone before.
        """
        match act:
            case Act.FIN:
                return self.connection.fin()
            case Act.RST:
                return self.connection.rst()
            case Act.HALF_CLOSE:
                return self.connection.half_close()
            case Act.STOP_READING:
                return self.stop_reading()
            case Act.RST_STREAM | Act.GOAWAY:
                return await self.say(act)

    def stop_reading(self) -> int:
        """Read no more; return when that was decided."""
        return time.monotonic_ns()

    async def say(self, act: Act) -> int:
        """Do what only HTTP/2 has a frame for."""
        raise ValueError(f"{act} needs HTTP/2")

    def end(self, *, cut: str | None) -> None:
        """Note how the answer ended; ``None`` means in good order."""
        self.seen.complete = cut is None
        self.seen.cut = cut
        self.seen.ended_ns = time.monotonic_ns()

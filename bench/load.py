"""The load generator: many streams over epoll in one thread, as raw as can be.

It counts events by counting frames in bytes and takes two kinds of time: from the
request to the first content, and from the moment that upstream wrote a paced event to
the moment that it is here.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self

_STAMP: Final = re.compile(rb"@(\d+)@")
_READ: Final = 256 * 1024
_END: Final = b"0\r\n\r\n"


@dataclass(frozen=True)
class Target:
    """Who is asked, and how its content events are told in its bytes."""

    name: str
    port: int
    path: str = "/chat"
    mark: bytes = b'"type":"content"'

    def request(self, model: str) -> bytes:
        """Return one request, whole."""
        turns = [{"role": "user", "content": "go"}]
        body: dict[str, Any] = {"model": model, "prompt": "go"}
        if self.path != "/chat":
            field = "input" if self.path.endswith("/responses") else "messages"
            body = {"model": model, "stream": True, field: turns}
        data = json.dumps(body).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


def direct(port: int) -> Target:
    """Return the upstream itself: the load's own ceiling."""
    path = "/api/v1/chat/completions"
    return Target("direct", port, path, b'"finish_reason":null')


class Exchange:
    """One request and what has come back of it."""

    __slots__ = (
        "asked_at", "begun_s", "events", "finished", "first_s", "request", "sock",
        "tail",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, request: bytes) -> None:
        self.sock = sock
        self.request = request
        self.asked_at = time.monotonic()
        self.begun_s: float | None = None  # to the first event of whatever kind
        self.first_s: float | None = None  # to the first content
        self.events = 0
        self.finished = False
        self.tail = b""


@dataclass
class Load:
    """Some streams of one target, begun at the same moment or one after another."""

    target: Target
    exchanges: list[Exchange] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    open: dict[int, Exchange] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.poll = select.epoll()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def events(self) -> int:
        """Content events that have come."""
        return sum(exchange.events for exchange in self.exchanges)

    @property
    def finished(self) -> int:
        """Streams that came to their proper end."""
        return sum(exchange.finished for exchange in self.exchanges)

    @property
    def first_s(self) -> list[float]:
        """Times to first content, of the streams that had any."""
        return [e.first_s for e in self.exchanges if e.first_s is not None]

    def begin(self, count: int, model: str) -> list[Exchange]:
        """Start streams; all that comes is read in `until`."""
        request = self.target.request(model)
        begun = []
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            exchange = Exchange(sock, request)
            sock.connect_ex(("127.0.0.1", self.target.port))
            self.poll.register(sock, self._ask(exchange))
            self.open[sock.fileno()] = exchange
            begun.append(exchange)
        self.exchanges += begun
        return begun

    def read_until(self, ready: Callable[[], bool], *, at_most_s: float) -> float:
        """Read until `ready`, or as long as given; return the seconds it took."""
        began = time.monotonic()
        ends_at = began + at_most_s
        while not ready() and (left := ends_at - time.monotonic()) > 0:
            for fd, _ in self.poll.poll(left):
                self._take(self.open[fd])
        return time.monotonic() - began

    def read_for(self, seconds: float) -> None:
        """Read as long as given."""
        self.read_until(lambda: False, at_most_s=seconds)

    def read_to_end(self, *, at_most_s: float) -> float:
        """Read until every stream has ended; return the seconds it took."""
        return self.read_until(lambda: not self.open, at_most_s=at_most_s)

    def read_to_begin(self, begun: list[Exchange], *, at_most_s: float) -> None:
        """Read until each of these streams has had content.

        :raises TimeoutError: when that takes longer.
        """
        waiting = iter(begun)
        current: Exchange | None = next(waiting, None)

        def ready() -> bool:
            nonlocal current
            while current is not None and current.first_s is not None:
                current = next(waiting, None)
            return current is None

        self.read_until(ready, at_most_s=at_most_s)
        if not ready():
            raise TimeoutError(f"expected content of each within {at_most_s:g} s")

    def raise_to(self, level: int, model: str, *, at_once: int) -> None:
        """Begin streams until so many are open, at most so many at the same time."""
        while (missing := level - len(self.open)) > 0:
            begun = self.begin(min(missing, at_once), model)
            self.read_to_begin(begun, at_most_s=120)

    def _take(self, exchange: Exchange) -> None:
        try:
            if exchange.request:
                self.poll.modify(exchange.sock, self._ask(exchange))
                return
            data = exchange.sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(exchange)
            return
        now = time.monotonic()
        mark = self.target.mark
        seen = exchange.tail + data
        events = seen.count(mark)
        if exchange.begun_s is None and b"data:" in data:
            exchange.begun_s = now - exchange.asked_at
        exchange.tail = seen[1 - len(mark) :]
        if events:
            exchange.events += events
            if exchange.first_s is None:
                exchange.first_s = now - exchange.asked_at
            # A stamp that two reads share is not counted.
            self.delays_s += [now - int(t) / 1e9 for t in _STAMP.findall(data)]
        if seen.endswith(_END):
            exchange.finished = True
            self._end(exchange)

    @staticmethod
    def _ask(exchange: Exchange) -> int:
        """Send the request, if there is a connection already; return what to wait for.

        Over loopback there is, unless the backlog is full.
        """
        try:
            exchange.sock.sendall(exchange.request)  # a packet: it fits
        except BlockingIOError:
            return select.EPOLLOUT
        exchange.request = b""
        return select.EPOLLIN

    def _end(self, exchange: Exchange) -> None:
        self.poll.unregister(exchange.sock)
        del self.open[exchange.sock.fileno()]
        exchange.sock.close()

    def close(self) -> None:
        """Leave every stream that is still open."""
        for exchange in tuple(self.open.values()):
            self._end(exchange)
        self.poll.close()

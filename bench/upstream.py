"""The upstream that the gateways are fed from: `python -m bench.upstream`.

One thread over epoll, because it must outrun what it feeds; the simulator's own timers
cost more than the events under test. The events have the simulator's shape, which is
OpenRouter's, in each of its three APIs, and each is an HTTP chunk of its own.

What to send stands in the request's model, `bench/EVENTS/PERIOD_MS`: that many content
events, at once and as fast as they are taken if the period is 0, else one a period. A
paced event carries the time at which it was written (CLOCK_MONOTONIC, which all
processes of a host share) as `@nanoseconds@`.
"""

from __future__ import annotations

import heapq
import itertools
import re
import select
import socket
import ssl
import sys
import time
from functools import cache
from typing import Final

from trio_ai_stream.simulator.block_encoding import (
    BlockEncoder,
    SimulatedMessageEncoder,
    SimulatedResponseEncoder,
)
from trio_ai_stream.simulator.encoding import Encoder
from trio_ai_stream.simulator.simulated_answer import SimulatedAnswer

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
# What tokens look like: short words, punctuation, a line break, letters beyond ASCII.
WORDS: Final = (
    " the", " stream", " ends", ",", " and", " everything", " it", " started", ".",
    "\n\n", " na\u00efve", ' "caf\u00e9"', " \u4f60\u597d", " ok", " nursery", ":",
)  # fmt: skip
SEND_BYTES: Final = 256 * 1024
# Successive streams are this far apart in their period: spread, and in no order.
GOLDEN: Final = 0.618033988749895

_ASKED: Final = re.compile(rb'"model"\s*:\s*"bench/(\d+)/(\d+)"')
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PATH: Final = re.compile(rb"POST /api/v1/([a-z/]+) ")


def chunk(data: bytes) -> bytes:
    """Return `data` as one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Spoken:
    """One API: its head, and what its answers consist of. Each event is a chunk."""

    def __init__(self, kind: type[Encoder]) -> None:
        self._kind = kind
        encoder = self._encoder()
        self.opening = HEAD + self._opening(encoder)
        self._open, self._close = encoder.content(["@"]).split(b"@")
        self.last = self._last(encoder)

    def _encoder(self) -> Encoder:
        return self._kind(
            generation_id="gen-1700000000-bench00000000000000",
            model="bench/model",
            created=1_700_000_000,
        )

    @staticmethod
    def _opening(encoder: Encoder) -> bytes:
        if not isinstance(encoder, BlockEncoder):
            return b""
        return chunk(encoder.begin(3) + encoder.content([]))

    @staticmethod
    def _last(encoder: Encoder) -> bytes:
        answer = SimulatedAnswer()
        frames = encoder.ending(answer, answer.usage(9), "own", done=True)
        return b"".join(map(chunk, filter(None, frames))) + b"0\r\n\r\n"

    @cache  # noqa: B019  there are as many as APIs, for as long as the process
    def burst(self, events: int) -> bytes:
        """Return a whole answer."""
        encoder = self._encoder()
        opening = HEAD + self._opening(encoder)
        words = itertools.islice(itertools.cycle(WORDS), events)
        content = b"".join(chunk(encoder.content([word])) for word in words)
        return opening + content + self._last(encoder)

    def stamped(self) -> bytes:
        """Return one content event that says when it was made."""
        return chunk(b"%b@%d@ word%b" % (self._open, time.monotonic_ns(), self._close))


SPOKEN: Final = {
    b"chat/completions": Spoken(Encoder),
    b"messages": Spoken(SimulatedMessageEncoder),
    b"responses": Spoken(SimulatedResponseEncoder),
}


class Answer:
    """One connection: the request that it is reading, or the answer it is writing."""

    __slots__ = ("left", "period_s", "received", "sock", "spoken", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.unsent = memoryview(b"")
        self.left = 0
        self.period_s = 0.0
        self.spoken = SPOKEN[b"chat/completions"]


class Upstream:
    """All connections, and the one queue of what is due."""

    def __init__(
        self, listener: socket.socket, tls: ssl.SSLContext | None = None
    ) -> None:
        self.listener = listener
        self.tls = tls
        self.poll = select.epoll()
        self.poll.register(listener, select.EPOLLIN)
        self.answers: dict[int, Answer] = {}
        self.due: list[tuple[float, int, Answer]] = []
        self.number = itertools.count()

    def run(self) -> None:
        """Serve for ever."""
        while True:
            wait_s = -1.0
            if self.due:
                wait_s = max(0.0, self.due[0][0] - time.monotonic())
            for fd, event in self.poll.poll(wait_s):
                if fd == self.listener.fileno():
                    self.accept()
                elif answer := self.answers.get(fd):
                    if event & select.EPOLLOUT:
                        self.write(answer)
                    if event & ~select.EPOLLOUT and answer.sock.fileno() >= 0:
                        self.read(answer)
            self.pace()

    def accept(self) -> None:
        """Take every connection that waits."""
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:  # others wait: only kept connections are measured
                sock = self.tls.wrap_socket(sock, server_side=True)
            sock.setblocking(False)
            self.answers[sock.fileno()] = Answer(sock)
            self.poll.register(sock, select.EPOLLIN)

    def read(self, answer: Answer) -> None:
        """Take what has come; answer once the request is whole."""
        try:
            data = answer.sock.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        if not data:
            self.drop(answer)
            return
        answer.received += data
        head, blank, body = answer.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or length is None or len(body) < int(length[1]):
            return
        asked, path = _ASKED.search(body), _PATH.match(head)
        answer.received = b""
        if asked is not None and path is not None:
            answer.spoken = SPOKEN[path[1]]
            self.begin(answer, int(asked[1]), int(asked[2]) / 1000)

    def begin(self, answer: Answer, events: int, period_s: float) -> None:
        """Start to answer."""
        if not period_s:
            self.send(answer, answer.spoken.burst(events))
            return
        answer.left, answer.period_s = events - 1, period_s
        self.send(answer, answer.spoken.opening + answer.spoken.stamped())
        number = next(self.number)
        phase = period_s * (number * GOLDEN % 1)
        heapq.heappush(self.due, (time.monotonic() + phase, number, answer))

    def pace(self) -> None:
        """Write every event that is due."""
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            due, number, answer = self.due[0]
            if answer.sock.fileno() < 0:
                heapq.heappop(self.due)
                continue
            answer.left -= 1
            spoken = answer.spoken
            if answer.left > 0:
                self.send(answer, spoken.stamped())
                heapq.heapreplace(self.due, (due + answer.period_s, number, answer))
            else:
                tail = b"" if answer.left else spoken.stamped()
                self.send(answer, tail + spoken.last)
                heapq.heappop(self.due)

    def send(self, answer: Answer, data: bytes) -> None:
        """Write, or queue behind what is queued."""
        if answer.unsent:
            answer.unsent = memoryview(bytes(answer.unsent) + data)
            return
        answer.unsent = memoryview(data)
        self.write(answer)
        if answer.unsent:
            self.poll.modify(answer.sock, select.EPOLLIN | select.EPOLLOUT)

    def write(self, answer: Answer) -> None:
        """Write what the kernel takes."""
        try:
            sent = answer.sock.send(answer.unsent[:SEND_BYTES])
        except (BlockingIOError, ssl.SSLWantWriteError):
            return
        except OSError:
            self.drop(answer)
            return
        answer.unsent = answer.unsent[sent:]
        if not answer.unsent:
            self.poll.modify(answer.sock, select.EPOLLIN)

    def drop(self, answer: Answer) -> None:
        """Forget a connection that its peer has closed."""
        del self.answers[answer.sock.fileno()]
        answer.sock.close()
        answer.unsent = memoryview(b"")


def main() -> None:
    """Print the port and serve until killed; over TLS, if a certificate is named."""
    tls = None
    if len(sys.argv) > 1:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(sys.argv[1])
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    Upstream(listener, tls).run()


if __name__ == "__main__":
    main()

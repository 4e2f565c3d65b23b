"""TLS to upstream: connections share buffers, and an idle one holds little."""

from __future__ import annotations

import ctypes
import gc
import ssl
from contextlib import suppress
from functools import partial
from random import Random

import httpx
import pytest
import trio

from tests.support.piecewise import PiecewiseStream
from tests.upstream.transport.servers import (
    AUTHORITY,
    CLIENT_TLS,
    CLOSED_FIRST,
    SERVER_TLS,
    Peer,
)
from trio_ai_stream.upstream.transport import UpstreamTransport
from trio_ai_stream.upstream.transport.links import Buffers, TlsLink


async def say_it_back(random: Random, stream: trio.SocketStream) -> None:
    """Answer with the request's body, all in pieces."""
    tls = trio.SSLStream(PiecewiseStream(stream, random), SERVER_TLS, server_side=True)
    peer = Peer(tls)
    async with stream:
        with suppress(*CLOSED_FIRST):
            while (request := await peer.request()) is not None:
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
                await peer.send(head % len(request.body) + request.body)


async def be_no_tls(random: Random, stream: trio.SocketStream) -> None:
    """Answer a hello with what is none, or with half of one."""
    async with stream:
        await stream.receive_some()
        answers = b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x03\x00\x7a\x02\x00"
        with suppress(*CLOSED_FIRST):
            await stream.send_all(random.choice(answers))


async def ask(transport: UpstreamTransport, port: int, text: bytes) -> None:
    """Expect back what was said, on a new connection and on one that was kept."""
    for _ in range(2):
        request = httpx.Request("POST", f"https://127.0.0.1:{port}/", content=text)
        response = await transport.handle_async_request(request)
        assert await response.aread() == text


async def ask_in_vain(transport: UpstreamTransport, port: int) -> None:
    """Expect a failure of the handshake."""
    request = httpx.Request("POST", f"https://127.0.0.1:{port}/", content=b"x")
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(request)


@pytest.mark.parametrize("seed", range(3))
async def test_connections_that_share_buffers_do_not_mix(seed: int) -> None:
    """Each request has its own bytes back, while others fail in their handshakes."""
    random = Random(seed)
    transport = UpstreamTransport(ssl_context=CLIENT_TLS)
    ports = []
    with trio.fail_after(30):
        async with trio.open_nursery() as servers:
            for serve in (say_it_back, be_no_tls):
                listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
                ports.append(listeners[0].socket.getsockname()[1])
                handler = partial(serve, random)
                servers.start_soon(trio.serve_listeners, handler, listeners)
            async with trio.open_nursery() as nursery:
                for number in range(12):
                    text = b"%d," % number * random.randrange(1, 20_000)
                    nursery.start_soon(ask, transport, ports[0], text)
                    nursery.start_soon(ask_in_vain, transport, ports[1])
            await transport.aclose()
            servers.cancel_scope.cancel(reason="the test is over")


class Wire:
    """A `ByteLink` to a TLS server without a socket, which answers each request."""

    sent = 0

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._said: list[bytes] = []

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    def unacknowledged(self) -> int:
        return 0

    def push(self, data: bytes) -> bool:
        self._incoming.write(data)
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
            while self._tls.read(1000):
                self._tls.write(b"answer")
        self._said += filter(None, [self._outgoing.read()])
        return True

    def join(self) -> None:
        """Have what was said in several pieces arrive in one."""
        self._said = [b"".join(self._said)]

    def take(self) -> bytes | None:
        return self._said.pop(0) if self._said else None

    def stale(self) -> bool:
        return False

    def close(self) -> None:
        pass


class MallocInformation(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def allocated() -> int:
    """Return how many bytes malloc has given out in this process."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = MallocInformation
    gc.collect()
    return int(library.mallinfo2().uordblks)


async def held(tickets: int, *, apart: bool) -> float:
    """Return what a connection holds that has had its first answer.

    The server's tickets come in one piece with it, or `apart`.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost").configure_cert(server)
    server.num_tickets = tickets
    buffers = Buffers()
    links = []
    before = 0
    for number in range(60):
        if number == 20:  # what the first ones take once is not counted
            before = allocated()
        wire = Wire(server)
        link = TlsLink(wire, CLIENT_TLS, buffers, server_hostname="localhost")
        links.append((link, wire))
        await link.handshake()
        link.push(b"request")
        if apart and tickets:
            assert link.take() is None
        wire.join()
        answer = link.take()
        assert answer is not None
        assert bytes(answer) == b"answer"
    return (allocated() - before) / 40


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc's mallinfo2"
)
@pytest.mark.parametrize("apart", [False, True])
async def test_session_tickets_leave_an_idle_connection_small(apart: bool) -> None:
    """OpenSSL takes 16 kB to read tickets; it has given them back after an answer."""
    without = await held(0, apart=apart)
    assert 5_000 < without < 80_000
    assert await held(2, apart=apart) < without + 4_000

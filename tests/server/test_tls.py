"""TLS connections share OpenSSL's two buffers, and nothing of them mixes."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from random import Random

import pytest
import trio
import trustme

from tests.support.piecewise import PiecewiseStream
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.sockets import Turns
from trio_ai_stream.server.tls import RecordBuffers, TLSTransport

AUTHORITY = trustme.CA()
SERVER = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
AUTHORITY.issue_cert("localhost").configure_cert(SERVER)
CLIENT = ssl.create_default_context()
AUTHORITY.configure_trust(CLIENT)
LIMITS = Limits(linger_s=0.2)


@contextmanager
def connected(
    buffers: RecordBuffers,
) -> Iterator[tuple[TLSTransport, trio.SocketStream]]:
    """A served connection, and the client's end of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport = TLSTransport(ours, LIMITS, Turns(), SERVER, buffers)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    try:
        yield transport, stream
    finally:
        transport.close()
        stream.socket.close()


class Engine:
    """A client's TLS over bytes."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = CLIENT.wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost"
        )

    def step(self, data: bytes = b"") -> tuple[bool, bytes]:
        """Go on with the handshake; whether it is done, and what the server is told."""
        self.incoming.write(data)
        done = False
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
            done = True
        return done, self.outgoing.read()


async def echo(transport: TLSTransport, buffers: RecordBuffers) -> None:
    """Give back what comes, until the client's end."""
    await transport.handshake()
    while data := await transport.receive():
        transport.write(data)
        assert not buffers.incoming.pending
        assert not buffers.outgoing.pending
        await transport.drain()
    await transport.linger()
    transport.close()


async def fail(transport: TLSTransport) -> None:
    """Serve a client that speaks no TLS, or goes in its middle."""
    with pytest.raises(OSError):  # noqa: PT011 - ssl.SSLError is one
        await transport.handshake()
    transport.close()


async def say(stream: trio.SocketStream, text: bytes, random: Random) -> None:
    """Say `text` over TLS, all in pieces; expect it back, and the end."""
    tls = trio.SSLStream(
        PiecewiseStream(stream, random), CLIENT, server_hostname="localhost"
    )
    back = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls.send_all, text)
        while len(back) < len(text):
            back += await tls.receive_some()
    assert back == text
    await tls.aclose()


async def break_off(stream: trio.SocketStream, said: bytes, random: Random) -> None:
    """Say something that is no handshake, or a part of one; then go."""
    with suppress(trio.BrokenResourceError):
        await PiecewiseStream(stream, random).send_all(said)
        await stream.send_eof()
        while await stream.receive_some():
            pass


@pytest.mark.parametrize("seed", range(3))
async def test_connections_that_share_buffers_do_not_mix(seed: int) -> None:
    """Each client has its own bytes back, while others break off their handshakes."""
    random, buffers = Random(seed), RecordBuffers()
    _, hello = Engine().step()
    with trio.fail_after(30), ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            for number in range(12):
                transport, stream = stack.enter_context(connected(buffers))
                text = b"%d," % number * random.randrange(1, 20_000)
                nursery.start_soon(echo, transport, buffers)
                nursery.start_soon(say, stream, text, random)
                for said in (b"GET / HTTP/1.1\r\n\r\n", hello[:100], hello + b"x" * 99):
                    transport, stream = stack.enter_context(connected(buffers))
                    nursery.start_soon(fail, transport)
                    nursery.start_soon(break_off, stream, said, random)
    assert not buffers.incoming.pending
    assert not buffers.outgoing.pending


async def shake_hands(
    transport: TLSTransport, stream: trio.SocketStream, *said: bytes, end: bytes = b""
) -> None:
    """Complete the handshake; its last piece has some records, and `end`, behind it."""
    client = Engine()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.handshake)
        done, answer = client.step()
        while not done:
            await stream.send_all(answer)
            done, answer = client.step(bytes(await stream.receive_some()))
        for text in said:
            client.tls.write(text)
        await stream.send_all(answer + client.outgoing.read() + end)
    await stream.send_eof()


async def test_a_request_behind_the_handshake_is_read() -> None:
    """It comes in one piece with the end of the client's handshake."""
    with trio.fail_after(10), connected(RecordBuffers()) as (transport, stream):
        await shake_hands(transport, stream, b"hello", b" again")
        assert await transport.receive() == b"hello again"
        assert await transport.receive() == b""


@pytest.mark.parametrize("end", [b"no record" * 9, b"\x17\x03\x03\x00\x20" + b"x" * 99])
async def test_what_comes_behind_the_end_reaches_no_other(end: bytes) -> None:
    """Bytes that are no record, and a record that nobody encrypted, end a client."""
    buffers = RecordBuffers()
    with trio.fail_after(10):
        for _ in range(2):
            with connected(buffers) as (transport, stream):
                await shake_hands(transport, stream, b"hello", end=end)
                assert await transport.receive() == b"hello"
                assert await transport.receive() == b""
                assert not buffers.incoming.pending

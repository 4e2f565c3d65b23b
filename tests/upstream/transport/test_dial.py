"""Dialling: several addresses, Happy Eyeballs, and the links it gives."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any

import pytest
import trio
import trio.testing

from tests.upstream.transport.servers import (
    CLIENT_TLS,
    OK,
    SERVER_TLS,
    Boundary,
    Peer,
    forever,
    serving,
    unanswering,
)
from trio_ai_stream.upstream.transport.dial import Dialer, Origin, Resolver
from trio_ai_stream.upstream.transport.links import closer
from trio_ai_stream.upstream.transport.transport_limits import (
    BLOCK_BYTES,
    TransportLimits,
)


def dialer(*addresses: tuple[str, int], delay_s: float = 0.25) -> Dialer:
    """A dialer for whom every host has these IPv4 addresses."""
    limits = TransportLimits(happy_eyeballs_delay_s=delay_s)

    def lookup(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", a) for a in addresses]

    made = Dialer(limits, ssl_context=CLIENT_TLS)
    made.resolver = Resolver(limits, lookup=lookup)
    return made


async def free_port() -> int:
    """A port at which nobody listens."""
    async with serving(forever(OK)) as server:
        return server.port


async def test_the_next_address_is_tried_when_one_fails() -> None:
    """A refused address costs no waiting: the next one is tried at once."""
    closed = await free_port()
    with trio.fail_after(30):
        async with serving(forever(OK)) as server:
            made = dialer(("127.0.0.1", closed), ("127.0.0.1", server.port), delay_s=99)
            link, report = await made.dial(Origin(False, "host", 80), [])
            assert report.peer == "127.0.0.1"
            link.close()
            await server.wait_open(0)


async def test_the_next_address_is_tried_when_one_is_slow() -> None:
    """An address that does not answer loses its head start, and its socket."""
    with trio.fail_after(30):
        async with serving(forever(OK)) as server:
            async with unanswering() as slow:
                address = ("127.0.0.1", server.port)
                made = dialer(("127.0.0.2", slow), address, delay_s=0.01)
                link, report = await made.dial(Origin(False, "host", 80), [])
            assert report.peer == "127.0.0.1"
            link.close()
            await server.wait_open(0)


async def test_no_address_that_answers_is_an_error_with_what_each_said() -> None:
    """The error names the failures, and no socket is left."""
    closed = await free_port()
    made = dialer(("127.0.0.1", closed), ("127.0.0.2", closed))
    with trio.fail_after(30), pytest.raises(OSError, match="no address answered"):
        await made.dial(Origin(False, "host", 80), [])


async def test_two_addresses_that_answer_give_one_connection() -> None:
    """The slower of two sockets is closed."""
    with trio.fail_after(30):
        async with serving(forever(OK)) as server:
            address = ("127.0.0.1", server.port)
            made = dialer(address, address, address, delay_s=0)
            link, _ = await made.dial(Origin(False, "host", 80), [])
            await server.wait_open(1)
            link.close()
            await server.wait_open(0)


async def test_a_session_ticket_does_not_make_an_idle_link_stale() -> None:
    """What a TLS server says on its own account (RFC 8446, 4.6.1) is not data."""
    with trio.fail_after(30):
        async with serving(forever(OK), tls=True) as server:
            made = dialer(("127.0.0.1", server.port))
            link, report = await made.dial(Origin(True, "localhost", 443), [])
            assert report.tls_s > 0
            # The server sends its tickets with its first answer.
            assert not link.push(b"") or link.sent > 0
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not link.stale()
            link.close()
            assert link.stale()


async def test_a_tls_link_gives_large_records_in_bounded_blocks() -> None:
    """However much was decrypted at once, a block has at most 16 KiB."""

    async def pour(peer: Peer) -> None:
        await peer.more()
        await peer.send(bytes(1_000_000))

    with trio.fail_after(30):
        async with serving(pour, tls=True) as server:
            made = dialer(("127.0.0.1", server.port))
            link, _ = await made.dial(Origin(True, "localhost", 443), [])
            assert link.push(b"go")
            taken = 0
            while True:
                await link.wait()
                block = link.take()
                if block is None:
                    continue
                if not block:
                    break
                assert len(block) <= BLOCK_BYTES
                taken += len(block)
            assert taken == 1_000_000
            link.close()


async def test_what_tls_has_decrypted_does_not_wait_for_the_socket() -> None:
    """Records beyond a block are handed out though no more bytes arrive."""

    async def pour(peer: Peer) -> None:
        await peer.more()
        # The fourth record is cut by our first read; with what the second read brings
        # after it, more than a block can be decrypted at once.
        await peer.send(bytes(4 * 16_384))
        for _ in range(55):
            await peer.send(bytes(1_000))
        await peer.more()

    with trio.fail_after(30):
        async with serving(pour, tls=True) as server:
            made = dialer(("127.0.0.1", server.port))
            link, _ = await made.dial(Origin(True, "localhost", 443), [])
            assert link.push(b"go")
            await trio.testing.wait_all_tasks_blocked(0.05)
            taken = 0
            while taken < 4 * 16_384 + 55 * 1_000:
                await link.wait()
                taken += len(link.take() or b"")
            link.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_cancel_after_any_step_of_a_dial_leaves_no_socket(tls: bool) -> None:
    """Whichever of several attempts is under way or has just won, it is closed."""
    with trio.fail_after(20):
        async with serving(forever(OK), tls=tls) as server:
            address = ("127.0.0.1", server.port)
            dialled = False
            k = 0
            while not dialled:
                k += 1
                made = dialer(address, address, delay_s=0)
                await server.wait_open(0)
                await trio.testing.wait_all_tasks_blocked()
                files = len(os.listdir("/proc/self/fd"))
                with trio.CancelScope() as scope:
                    boundary = Boundary(scope, k)
                    trio.lowlevel.add_instrument(boundary)
                    try:
                        link, _ = await made.dial(Origin(tls, "localhost", 443), [])
                        link.close()
                        dialled = True
                    finally:
                        trio.lowlevel.remove_instrument(boundary)
                await server.wait_open(0)
                await trio.testing.wait_all_tasks_blocked()
                assert len(os.listdir("/proc/self/fd")) == files, f"after step {k}"
            assert k > 5


async def test_every_stream_of_trio_can_be_closed_without_waiting() -> None:
    """closer finds the plain call through TLS and stapled streams."""
    ours, theirs = trio.testing.memory_stream_pair()
    wrapped = trio.SSLStream(ours, ssl.create_default_context(), server_hostname="a")
    closer(wrapped)()
    assert await theirs.receive_some() == b""
    left, right = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(left))
    closer(trio.SSLStream(stream, SERVER_TLS, server_side=True))()
    assert stream.socket.fileno() == -1
    right.close()


def test_a_stream_that_needs_an_await_to_close_is_refused() -> None:
    """A cancelled task could not close it: the error says what is expected."""

    class Slow(trio.abc.AsyncResource):
        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    with pytest.raises(TypeError, match="plain close"):
        closer(Slow())


@pytest.mark.parametrize("name", ["max_head_bytes", "dns_threads", "max_idle"])
def test_a_limit_that_cannot_be_met_is_refused(name: str) -> None:
    """The error names the limit and what was given."""
    with pytest.raises(ValueError, match=name):
        TransportLimits(**{name: -1})

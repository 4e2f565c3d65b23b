"""The network in memory behaves like one of sockets, and breaks when asked to."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing

from trio_sweep import MemoryListener, MemoryStream, memory_listener
from trio_sweep.memory import LOCKSTEP, MemoryConnection


async def one_way(maker: MemoryConnection) -> tuple[MemoryStream, MemoryStream]:
    """What Trio's own checks of streams ask for."""
    return maker.client, maker.server


@pytest.mark.parametrize("capacity", [64, 16_384, LOCKSTEP])
def test_it_is_a_stream_as_trio_understands_it(capacity: int) -> None:
    """Trio's own checks of half-closeable streams pass."""

    async def pair() -> tuple[MemoryStream, MemoryStream]:
        return await one_way(MemoryConnection(capacity))

    async def main() -> None:
        with trio.fail_after(60):
            await trio.testing.check_half_closeable_stream(pair, None)

    trio.run(main)


def run(main: object) -> None:
    """Run an async function in virtual time, with a real limit."""
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))  # type: ignore[arg-type]


def test_a_full_pipe_makes_its_sender_wait() -> None:
    """Backpressure; and in lockstep a send ends when it has been received."""

    async def main() -> None:
        for capacity, sent in ((4, True), (LOCKSTEP, False)):
            connection = MemoryConnection(capacity)
            with trio.move_on_after(1) as patience:
                await connection.client.send_all(b"1234")
            assert patience.cancelled_caught is not sent
            with trio.move_on_after(1) as patience:
                await connection.client.send_all(b"5")
            assert patience.cancelled_caught

    run(main)


def test_a_reset_loses_what_is_in_flight_and_a_half_close_does_not() -> None:
    """RST and FIN, as plain calls."""

    async def main() -> None:
        reset, ended = MemoryConnection(100), MemoryConnection(100)
        for connection in (reset, ended):
            await connection.server.send_all(b"last words")
        reset.reset()
        ended.end_server()
        with pytest.raises(trio.BrokenResourceError):
            await reset.client.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await reset.client.send_all(b"x")
        assert await ended.client.receive_some() == b"last words"
        assert await ended.client.receive_some() == b""
        await ended.client.send_all(b"still heard")
        assert await ended.server.receive_some() == b"still heard"
        ended.end_client()
        assert await ended.server.receive_some() == b""

    run(main)


def test_a_listener_refuses_when_asked_and_when_closed() -> None:
    """As a port does at which nobody listens."""

    async def main() -> None:
        listener = MemoryListener()
        await listener.connect()
        assert listener.open == 1
        assert listener.refuse()
        assert not listener.refuse()
        with pytest.raises(ConnectionRefusedError):
            await listener.connect()
        listener.refusing = False
        await listener.aclose()
        with pytest.raises(ConnectionRefusedError):
            await listener.connect()

    run(main)


def test_a_handler_that_fails_is_heard_and_a_peer_that_left_is_not() -> None:
    """Errors of the server are errors of the run."""

    async def quiet(stream: MemoryStream) -> None:
        while True:
            await stream.send_all(b"x" * 100_000)

    async def quiet_in_a_group(stream: MemoryStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(quiet, stream)
            nursery.start_soon(trio.sleep_forever)

    async def failing(_: MemoryStream) -> None:
        raise ValueError("server bug")

    async def main() -> None:
        for handler in (quiet, quiet_in_a_group):
            async with memory_listener(handler) as listener:
                (await listener.connect()).close()
                await trio.testing.wait_all_tasks_blocked()
        with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
            async with memory_listener(failing) as listener:
                await listener.connect()
                await trio.sleep(1)

    run(main)


def test_tls_and_open_tcp_stream_work_over_it() -> None:
    """A client that dials by Trio's function gets a connection in memory."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("example.test").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)

    async def echo(stream: trio.SSLStream[MemoryStream]) -> None:
        while data := await stream.receive_some():
            await stream.send_all(data)

    async def main() -> None:
        async with memory_listener(echo, tls=server) as listener:
            with listener.as_tcp():
                stream = await trio.open_tcp_stream("example.test", 443)
            tls = trio.SSLStream(
                stream, client, server_hostname="example.test", https_compatible=True
            )
            async with tls:
                await tls.send_all(b"secret")
                assert await tls.receive_some() == b"secret"

    run(main)


def test_an_end_answers_what_libraries_ask_of_a_socket() -> None:
    """The pool of httpcore asks whether an idle connection has become readable."""

    async def main() -> None:
        connection = MemoryConnection(100)
        end = connection.client
        passes: object = end
        assert isinstance(passes, trio.SocketStream)
        assert end.socket.getpeername() == end.socket.getsockname()
        assert not end.socket.is_readable()
        await connection.server.send_all(b"x")
        assert end.socket.is_readable()
        await end.receive_some()
        assert not end.socket.is_readable()
        connection.reset()
        assert end.socket.is_readable()

    run(main)

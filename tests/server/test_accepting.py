"""Accepting: whatever a listener or a client does, the others are still served."""

from __future__ import annotations

import errno
import logging
import socket
from collections import deque
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Sockets

from tests.support.descriptors import no_descriptors
from tests.support.server.client import Client, get, status_of
from tests.support.server.servers import LocalServer, serve_while
from trio_ai_stream.server import worker
from trio_ai_stream.server.connection import Connection
from trio_ai_stream.server.side_listener import (
    MANAGEMENT_LIMITS,
    listen_tcp,
    serve_beside,
)


class CountingSocket(socket.socket):
    """A listening socket that counts accepts, and fails them as it is told to."""

    accepts = 0
    failures: deque[BaseException]

    @classmethod
    def listening(cls, *failures: BaseException) -> CountingSocket:
        """Return one on a free port of loopback."""
        sock = cls()
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        sock.failures = deque(failures)
        return sock

    def accept(self) -> Any:
        """Accept, or raise the next failure."""
        self.accepts += 1
        if self.failures:
            raise self.failures.popleft()
        return super().accept()


async def test_a_listener_that_is_shut_down_elsewhere_ends_its_loop() -> None:
    """It is readable for ever; the loop looks once, and the worker drains."""
    sock = CountingSocket.listening()

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/ok"))
            await client.read_until(lambda data: data.endswith(b"/ok"))
            before = sock.accepts
            sock.shutdown(socket.SHUT_RDWR)
            await server.draining()
            assert sock.accepts - before <= 2

    await serve_while(body, sockets=Sockets([], [sock], []))


async def test_a_listener_that_another_worker_of_a_drain_has_shut_down_is_no_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its order comes to all, and to one of them first."""
    monkeypatch.setattr(worker, "_ORDER_S", 60)  # however busy the machine is
    sock = CountingSocket.listening()

    async def body(server: LocalServer) -> None:
        before = sock.accepts
        sock.shutdown(socket.SHUT_RDWR)
        while sock.accepts == before:
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        server.stop.set()

    await serve_while(body, sockets=Sockets([], [sock], []))
    # Whether records of level INFO are seen depends on the tests before.
    assert not [one for one in caplog.records if one.levelno > logging.INFO]


@pytest.mark.parametrize(
    "failure",
    [MemoryError(), OSError(errno.EMFILE, "none left"), OSError(errno.EPROTO, "odd")],
    ids=["memory", "descriptors", "of-one-client"],
)
async def test_a_failed_accept_ends_nothing(failure: BaseException) -> None:
    """The next client is served by the same loop."""
    sock = CountingSocket.listening(failure)

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/ok"))
            answer = await client.read_until(lambda data: data.endswith(b"/ok"))
            assert status_of(answer) == 200

    await serve_while(body, sockets=Sockets([], [sock], []))


async def test_no_memory_for_a_connection_ends_only_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is closed, and the next client is served."""
    real, failures = Connection, [MemoryError()]

    def make(*args: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*args, **options)

    monkeypatch.setattr(worker, "Connection", make)

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as unlucky:
            assert await unlucky.read_to_end() == b""
        async with await Client.connect(server.port) as client:
            await client.say(get("/ok"))
            answer = await client.read_until(lambda data: data.endswith(b"/ok"))
            assert status_of(answer) == 200

    await serve_while(body)


async def test_the_cap_holds_in_a_burst() -> None:
    """Sixteen clients at once, two of whom are let in; the others are told 503."""
    sock = CountingSocket.listening()
    sock.listen(32)
    clients = [socket.create_connection(sock.getsockname()) for _ in range(16)]

    async def body(server: LocalServer) -> None:
        statuses = []
        fourteen = trio.Event()

        async def ask(plain: socket.socket) -> None:
            plain.setblocking(False)
            client = Client(trio.SocketStream(trio.socket.from_stdlib_socket(plain)))
            statuses.append(status_of(await client.read_to_end()))
            if len(statuses) == 14:
                fourteen.set()

        async with trio.open_nursery() as nursery:
            for plain in clients:
                nursery.start_soon(ask, plain)
            await fourteen.wait()
            nursery.cancel_scope.cancel(reason="the other two wait for a request")
        assert statuses == [503] * 14
        assert server.hardened.tally.snapshot().connections_open == 2

    await serve_while(body, connections=2, sockets=Sockets([], [sock], []))
    for plain in clients:
        plain.close()


async def test_without_descriptors_probes_are_still_answered() -> None:
    """A connection that has one of those kept back says so to the application."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as first:
            await first.say(get("/spare"))
            answer = await first.read_until(lambda data: data.endswith(b"False"))
            assert status_of(answer) == 200
            for _ in range(3 * worker._RESERVED):  # each is given back
                client = trio.socket.socket()
                with client, no_descriptors():
                    await client.connect(("127.0.0.1", server.port))
                    stream = trio.SocketStream(client)
                    await stream.send_all(get("/spare"))
                    answer = b""
                    async for data in stream:
                        answer += data
                    assert answer.endswith(b"True"), answer

    await serve_while(body)


async def test_a_callback_that_raises_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The drain goes on although the application fails at being told of it."""

    def fail() -> None:
        raise ValueError("from the callback")

    async def body(server: LocalServer) -> None:
        monkeypatch.setattr(server.application, "begin_drain", fail)
        monkeypatch.setattr(server.application, "end_streams", fail)
        async with await Client.connect(server.port) as live:
            await live.say(get("/stream?n=2&every=60"))
            await live.read_until(lambda data: b"data: 0" in data)
            server.stop.set()
            await live.read_to_end()

    await serve_while(body, drain_s=0.1, terminal_events_s=0.1)
    events = [vars(record).get("event") for record in caplog.records]
    assert events.count("callback_error") == 2


async def test_half_requests_do_not_crowd_the_management_listener_out() -> None:
    """Whoever comes takes the place of the oldest that has not asked for anything."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"well"})

    with trio.fail_after(30), ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            bind = ("127.0.0.1", 0)
            sock = listen_tcp(bind, setting="METRICS_PORT", shared=False, backlog=64)
            port = sock.getsockname()[1]
            await nursery.start(serve_beside, app, sock, MANAGEMENT_LIMITS)
            idle = [await Client.connect(port) for _ in range(64)]
            for client in idle:
                stack.enter_context(client.stream.socket)
                await client.say(b"GET /metrics HTTP/1.1\r\n")
            async with await Client.connect(port) as probe:
                await probe.say(get("/health"))
                await probe.read_until(lambda data: b"well" in data)
            assert await idle[0].read_to_end() == b""  # the others were kept
            await idle[1].say(b"Host: localhost\r\n\r\n")
            await idle[1].read_until(lambda data: b"well" in data)
            nursery.cancel_scope.cancel(reason="the test is over")

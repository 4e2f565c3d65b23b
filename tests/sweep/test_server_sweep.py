"""The HTTP server's own code, cancelled wherever a cancel can land.

A client and the server are the two ends of a pair of Unix sockets: memory of the
kernel, in which what one end sends is at once readable at the other. So runs are
deterministic, and time is virtual.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Final

import pytest
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config

from tests.support.server import frames
from tests.sweep.scenario import HOST
from tests.sweep.sockets import contexts
from trio_ai_stream.server.connection import Tally
from trio_ai_stream.server.http_stream import EXTENSION
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.sockets import ClientTransport
from trio_ai_stream.server.worker import Shutdown, Worker
from trio_sweep import Cause, Report, sweep

HTTP1: Final = (
    b"POST / HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"
)
HTTP2: Final = frames.hello() + frames.request(1, method=b"POST", end=False)


class Wired:
    """A worker, its application, and one client at a time."""

    def __init__(self, kind: str, nursery: trio.Nursery) -> None:
        self.kind = kind
        self.live = 0  # calls of the application
        self.answers: list[bytes] = []
        self.stream: trio.SocketStream | None = None  # the client's end
        self.worker = Worker(
            ASGIWrapper(self._application),
            Config(),
            {},
            limits=Limits(),
            drainable=self,
            tally=Tally(),
            shutdown=Shutdown(alone=True),
        )
        self.worker.tls = contexts()[0]
        self._nursery = nursery

    def __len__(self) -> int:
        """Return 0: each stream is an exchange's."""
        return 0

    async def until_over(self) -> None:
        """Do nothing."""

    def begin_drain(self) -> None:
        """Do nothing: the worker refuses what is new."""

    def end_streams(self) -> bool:
        """Tell that nobody is left to end: no drain of these is over."""
        return False

    async def serve_one(self) -> None:
        """Serve one connection to its end; its client lives outside."""
        near, far = socket.socketpair()
        near.setblocking(False)
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(far))
        self._nursery.start_soon(self._ask, self.stream, name="client")
        async with trio.open_nursery() as nursery:
            self.worker._admit(near, nursery, secure=self.kind == "tls", spare=False)

    async def _ask(self, stream: trio.SocketStream) -> None:
        secured: Any = stream
        if self.kind == "tls":
            secured = trio.SSLStream(
                stream,
                contexts()[1],
                server_hostname=HOST,
                https_compatible=True,
            )
        answer = b""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if self.kind == "http2":
                await secured.send_all(HTTP2)
                await secured.send_all(frames.data(1, b"body", end=True))
            else:
                await secured.send_all(HTTP1)
            while data := await secured.receive_some():
                answer += data
                if self.kind == "http2" and any(
                    one.stream == 1 and (one.ended or one.kind == "reset")
                    for one in frames.parse(answer)
                ):
                    break
        stream.socket.close()
        self.answers.append(answer)

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        """Read the request; then write three pieces, one a second."""
        self.live += 1
        try:
            with trio.CancelScope() as client:
                scope["extensions"][EXTENSION].on_disconnect(client.cancel)
                while (await receive()).get("more_body"):
                    pass
                await send(
                    {"type": "http.response.start", "status": 200, "headers": []}
                )
                for number in range(3):
                    piece = {"body": b"piece %d " % number, "more_body": True}
                    await send({"type": "http.response.body", **piece})
                    await trio.sleep(1)
                await send({"type": "http.response.body", "body": b"whole"})
        finally:
            self.live -= 1

    def disconnect(self) -> bool:
        """Let the client go."""
        if self.stream is None or self.stream.socket.fileno() < 0:
            return False
        with contextlib.suppress(OSError):  # the server's end is closed
            self.stream.socket.shutdown(socket.SHUT_RDWR)  # as a close, to its peer
        return True

    def drain(self) -> None:
        """Let the worker drain: what is live goes on."""
        self.worker.draining = True
        for connection in list(self.worker.connections):
            connection.begin_drain()

    def left(self) -> Iterator[str]:
        """Name what a connection has left behind."""
        tally = self.worker.tally
        counts = tally.connections_open, tally.exchanges_live, self.live
        if any(counts) or self.worker.connections:
            yield f"left: {counts}, {len(self.worker.connections)} connections"

    async def serve_again(self) -> None:
        """Serve the next client."""
        await self.serve_one()
        await trio.testing.wait_all_tasks_blocked()
        assert self.answers[-1].count(b"piece") == 3, self.answers[-1]


@contextlib.asynccontextmanager
async def wired(kind: str) -> AsyncIterator[Wired]:
    """Yield a worker that serves."""
    async with trio.open_nursery() as nursery:
        made = Wired(kind, nursery)
        try:
            yield made
        finally:
            made.worker.reserve.close()
            nursery.cancel_scope.cancel()


def swept(kind: str, seeds: int = 1, check: Callable[..., Any] = Wired.left) -> Report:
    """Sweep a connection of this kind."""
    causes = (
        Cause("disconnect", Wired.disconnect, raises=(), within_s=0),
        Cause("drain", Wired.drain, raises=()),
    )
    world = partial(wired, kind)
    return sweep(
        Wired.serve_one,
        world=world,
        after=Wired.serve_again,
        check=check,
        causes=causes,
        scopes=False,
        seeds=seeds,
        name=kind,
        packages=["trio_ai_stream.server.connection"],
    )


@pytest.mark.parametrize("kind", ["http1", "http2", "tls"])
def test_a_connection_of_the_server_leaves_nothing_wherever_it_is_cancelled(
    kind: str,
) -> None:
    """Each boundary, with a cancel, a client that leaves, and a drain."""
    report = swept(kind)
    report.raise_for_violations()
    assert {"delivered", "deferred", "spared"} <= set(report.fates)
    assert report.coverage is not None
    assert len(report.coverage.covered) > 5


def test_a_connection_that_stays_open_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep would notice a server that does not close its sockets."""
    monkeypatch.setattr(ClientTransport, "close", lambda _: None)
    found = {one.invariant for one in swept("http1").findings}
    assert {"descriptors", "resource-warning"} & found

"""trio-websocket: a client, and one whose server never answers."""

from __future__ import annotations

import contextlib

import trio
import trio_websocket as tw
from common import main, network, use


async def silent(stream) -> None:
    """Take the connection and say nothing."""
    while await stream.receive_some():
        pass


async def echo(stream) -> None:
    """Serve WebSocket messages."""
    async with trio.open_nursery() as nursery:
        with contextlib.suppress(tw.ConnectionClosed, tw.HandshakeError):
            request = await tw.wrap_server_stream(nursery, stream)
            ws = await request.accept()
            while True:
                await ws.send_message(await ws.get_message())
        nursery.cancel_scope.cancel()


async def client(listener) -> None:
    """Open, send, receive, ping, close."""
    async with tw.open_websocket("x", 80, "/", use_ssl=False) as ws:
        await ws.send_message("a")
        assert await ws.get_message() == "a"
        await ws.ping()


async def times_out(listener) -> None:
    """Rely on the library's own timeout."""
    with contextlib.suppress(tw.ConnectionTimeout):
        async with tw.open_websocket("x", 80, "/", use_ssl=False, connect_timeout=1):
            pass


use("trio-websocket", "client", client, world=network(echo), after=client)
use("trio-websocket", "connect_timeout", times_out, world=network(silent))

if __name__ == "__main__":
    main()

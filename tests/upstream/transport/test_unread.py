"""A request that upstream certainly has not read is sent again; another one is not."""

from __future__ import annotations

import socket
import struct
from contextlib import closing

import httpx
import pytest
import trio

from trio_ai_stream.upstream.transport import UpstreamTransport
from trio_ai_stream.upstream.transport.dial import Origin
from trio_ai_stream.upstream.transport.pool import Pool, UpstreamConnection

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def read_request(stream: trio.SocketStream) -> bytes:
    """Read one request whose body is `body`."""
    data = b""
    while not data.endswith(b"body"):
        piece = await stream.receive_some()
        if not piece:
            break
        data += piece
    return data


async def post(transport: UpstreamTransport, port: int) -> httpx.Response:
    """Send a POST, which is not idempotent."""
    request = httpx.Request("POST", f"http://127.0.0.1:{port}/", content=b"body")
    response = await transport.handle_async_request(request)
    await response.aread()
    return response


def reset(stream: trio.SocketStream) -> None:
    """Close with a reset, whatever was read."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@pytest.mark.parametrize("how", ["closed", "reset", "read, closed", "read, reset"])
async def test_a_kept_connection_that_ends_without_an_answer(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended before our request came has not read it; what ended later may have.

    The connection is closed between the pool's look at it and the request.
    """
    streams: list[trio.SocketStream] = []

    async def serve(stream: trio.SocketStream) -> None:
        streams.append(stream)
        await read_request(stream)
        await stream.send_all(OK)
        if how.startswith("read") and len(streams) == 1:
            await read_request(stream)
            reset(stream) if how == "read, reset" else stream.socket.close()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        transport = UpstreamTransport()
        acquire = transport._pool.acquire

        def acquire_and_close(origin: Origin) -> UpstreamConnection | None:
            connection = acquire(origin)
            if connection is not None and how == "closed":
                streams[0].socket.close()
            elif connection is not None and how == "reset":
                reset(streams[0])
            return connection

        monkeypatch.setattr(
            Pool, "acquire", lambda _, origin: acquire_and_close(origin)
        )
        try:
            with trio.fail_after(30):
                await post(transport, port)
                if how.startswith("read"):
                    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                        await post(transport, port)
                else:
                    assert (await post(transport, port)).status_code == 200
            assert len(streams) == (1 if how.startswith("read") else 2)
        finally:
            await transport.aclose()
            nursery.cancel_scope.cancel(reason="test over")


async def test_a_new_connection_that_took_nothing_is_a_connect_error() -> None:
    """So whoever asks knows that the request may be sent again."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        async def connect(host: str, port: int, _tls: bool) -> trio.SocketStream:
            stream = await trio.open_tcp_stream(host, port)
            listener.accept()[0].close()
            return stream

        transport = UpstreamTransport(connect=connect)
        with trio.fail_after(30), pytest.raises(httpx.ConnectError):
            await post(transport, listener.getsockname()[1])
        await transport.aclose()

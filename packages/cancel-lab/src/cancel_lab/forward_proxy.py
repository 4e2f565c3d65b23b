"""A forward proxy that knows CONNECT and nothing else: ``forward_proxy PORT``.

It ends both of its connections as soon as either ends, so that what is timed through it
is the gateway's doing.
"""

from __future__ import annotations

import functools
import sys

import trio

HEAD_BYTES = 65536


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    async for data in source:
        await sink.send_all(data)


async def _serve(client: trio.SocketStream) -> None:
    head = b""
    try:
        while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES:
            data = await client.receive_some()
            if not data:
                return
            head += data
        method, target, *_ = head.decode("latin-1").split(" ")
        host, _, port = target.rpartition(":")
        if method != "CONNECT":
            await client.send_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
            return
        async with await trio.open_tcp_stream(host, int(port)) as upstream:
            await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with trio.open_nursery() as nursery:

                async def one_way(a: trio.SocketStream, b: trio.SocketStream) -> None:
                    await _copy(a, b)
                    nursery.cancel_scope.cancel(reason="one side has ended")

                nursery.start_soon(one_way, client, upstream)
                nursery.start_soon(one_way, upstream, client)
    except* (OSError, ValueError, trio.BrokenResourceError):
        pass  # either side broke, or said what is no request: both are closed
    finally:
        await trio.aclose_forcefully(client)


def main() -> None:
    """Serve on loopback until killed."""
    port = int(sys.argv[1])
    trio.run(functools.partial(trio.serve_tcp, _serve, port, host="127.0.0.1"))


if __name__ == "__main__":
    main()

"""anyio 4.16.0: `TLSStream.wrap` leaves its transport to its caller, when cancelled."""

import anyio
import trio
from anyio.streams.tls import TLSStream


async def main():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")  # never answers
    transport = await anyio.connect_tcp(*listener.socket.getsockname())
    with trio.move_on_after(0.1):
        await TLSStream.wrap(transport, hostname="x")
    print("still open:", transport.extra(anyio.abc.SocketAttribute.raw_socket))


trio.run(main)

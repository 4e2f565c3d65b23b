"""httpcore 1.0.9, httpcore2 2.16.2: a cancel in the TLS handshake leaks the socket."""

import gc
import os
import sys

import trio

name = sys.argv[1] if len(sys.argv) > 1 else "httpcore"
library = __import__(name)


async def silent(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


async def main() -> None:
    gc.disable()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, silent, [listener])
        pool, before = library.AsyncConnectionPool(), len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with trio.move_on_after(0.05):
                await pool.request("GET", f"https://127.0.0.1:{port}/")
        await trio.sleep(0.2)
        print(name, "descriptors left:", len(os.listdir("/proc/self/fd")) - before)
        nursery.cancel_scope.cancel()


trio.run(main)

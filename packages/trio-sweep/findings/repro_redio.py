"""redio 1.0.0: its connections are left to the garbage collector, cancel or not."""

import gc
import warnings

import redio
import trio

warnings.simplefilter("always", ResourceWarning)


async def serve(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        await stream.send_all(b"$1\r\nx\r\n")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        print(await redio.Redis(f"redis://127.0.0.1:{port}")().get("key"))
        nursery.cancel_scope.cancel()


trio.run(main)
gc.collect()

"""coredis 6.9.0: a plain cancel while it connects is logged as an error.

One that comes before the connection is tried leaves memory streams to the collector.
"""

import gc
import logging
import warnings

import coredis
import trio

logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")


async def silent(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


async def main(wait_s: float) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, silent, [listener])
        port = listener.socket.getsockname()[1]
        with trio.move_on_after(wait_s):
            async with coredis.Redis(host="127.0.0.1", port=port) as client:
                await client.get("key")
        nursery.cancel_scope.cancel()


trio.run(main, 0.2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    trio.run(main, 0)
    gc.collect()
print("streams left to the collector:", len(caught))

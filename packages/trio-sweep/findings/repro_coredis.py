"""coredis 6.9.0: a plain cancel while it connects is logged as an error.

One that comes before the connection is tried leaves memory streams to the collector.
"""

import gc
import logging
import warnings

import coredis
import trio

logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")


async def main(wait_s: float) -> None:
    async def cancel() -> None:
        await trio.sleep(wait_s)
        nursery.cancel_scope.cancel()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")  # nobody answers
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        async with coredis.Redis(host="127.0.0.1", port=port) as client:
            await client.get("key")


trio.run(main, 0.2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", ResourceWarning)
    trio.run(main, 0)
    gc.collect()
print("left:", [str(one.message) for one in caught if "Memory" in str(one.message)])

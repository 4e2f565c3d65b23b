"""httpcore 1.0.9: requests cancelled together leave a slot of the pool taken."""

import httpcore
import trio

# A network that is silent: no connection comes about.
trio.open_tcp_stream = lambda *_, **__: trio.sleep_forever()  # noqa: ASYNC105


async def main(pool):
    with trio.move_on_after(0.1):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(pool.request, "GET", "http://x/")
    print("left in the pool:", pool.connections)


trio.run(main, httpcore.AsyncConnectionPool(max_connections=1))

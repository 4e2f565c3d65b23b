"""httpcore 1.0.9: a cancel of requests that share a connection can lose its slot."""

import httpcore
import trio


class Slow(httpcore._backends.trio.TrioBackend):
    async def connect_tcp(self, *args, **kwargs):
        await trio.sleep(0.1)
        return await super().connect_tcp(*args, **kwargs)


async def main() -> None:
    for attempt in range(50):
        pool = httpcore.AsyncConnectionPool(max_connections=1, network_backend=Slow())
        with trio.move_on_after(0.02):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(pool.request, "GET", "http://127.0.0.1:9/")
        if pool.connections:
            print(f"attempt {attempt}: all were cancelled, left:", pool.connections)
            break


trio.run(main)

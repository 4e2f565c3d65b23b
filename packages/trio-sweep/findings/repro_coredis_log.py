"""coredis 6.9.0: a cancel while it connects is logged as an error."""

import logging

import coredis
import trio


async def main():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")  # never answers
    with trio.move_on_after(0.2):
        async with coredis.Redis(port=listener.socket.getsockname()[1]) as client:
            await client.get("key")


logging.basicConfig()
trio.run(main)

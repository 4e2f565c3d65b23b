"""coredis 6.9.0: a cancel before it connects leaves streams to the collector."""

import coredis
import trio


async def main():
    for _ in range(20):  # the order of two tasks decides
        with trio.CancelScope() as scope:
            trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel)
            async with coredis.Redis() as client:
                await client.get("key")


trio.run(main)

"""redio 1.0.0: its pool keeps its connections, and has no way to close them."""

import redio
import trio


async def main():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    redis = redio.Redis(f"redis://127.0.0.1:{listener.socket.getsockname()[1]}")
    async with listener:
        await redis()  # connects, and is back in the pool at once
    print("in the pool:", redis.pool[0].sock.socket)


trio.run(main)

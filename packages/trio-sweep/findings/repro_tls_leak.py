"""httpcore 1.0.9, httpcore2 2.16.2: a cancel in the TLS handshake leaks the socket."""

import gc
import os
import sys

import trio

library = __import__(sys.argv[1] if len(sys.argv) > 1 else "httpcore")


async def main() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")  # nobody answers
    url = f"https://127.0.0.1:{listener.socket.getsockname()[1]}/"
    pool, before = library.AsyncConnectionPool(), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with trio.move_on_after(0.05):
            await pool.request("GET", url)
    print("descriptors left:", len(os.listdir("/proc/self/fd")) - before)


gc.disable()
trio.run(main)

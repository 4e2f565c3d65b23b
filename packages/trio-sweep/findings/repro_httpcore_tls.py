"""httpcore 1.0.9: the socket of a TLS handshake that is cancelled stays open."""

import httpcore
import trio


async def main():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")  # never answers
    url = f"https://127.0.0.1:{listener.socket.getsockname()[1]}/"
    async with listener, httpcore.AsyncConnectionPool() as client:
        with trio.move_on_after(0.1):
            await client.request("GET", url)


trio.run(main)

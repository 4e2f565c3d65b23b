"""httpx 0.28.1: the socket of a TLS handshake that is cancelled stays open."""

import httpx
import trio


async def main():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")  # never answers
    url = f"https://127.0.0.1:{listener.socket.getsockname()[1]}/"
    async with listener, httpx.AsyncClient() as client:
        with trio.move_on_after(0.1):
            await client.request("GET", url)


trio.run(main)

"""trio-websocket 0.12.2: an open that is cancelled does not close its socket."""

import trio
from trio_websocket import open_websocket


async def main():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")  # never answers
    host, port = listener.socket.getsockname()
    async with listener:
        with trio.move_on_after(0.1):
            async with open_websocket(host, port, "/", use_ssl=False):
                pass


trio.run(main)

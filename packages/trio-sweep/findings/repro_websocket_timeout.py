"""trio-websocket 0.12.2: `connect_timeout` does not fire for a silent server."""

import trio
from trio_websocket import open_websocket


async def main():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")  # never answers
    host, port = listener.socket.getsockname()
    with trio.move_on_after(3) as outer:
        async with open_websocket(host, port, "/", use_ssl=False, connect_timeout=0.5):
            pass
    print("connect_timeout=0.5 had not fired after 3 s:", outer.cancelled_caught)


trio.run(main)

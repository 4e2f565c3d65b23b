"""trio-websocket 0.12.2: no connect_timeout; a cancelled open does not close."""

import warnings

import trio
from trio_websocket import open_websocket


async def main() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")  # nobody answers
    where = ("127.0.0.1", listener.socket.getsockname()[1], "/")
    with trio.move_on_after(3) as outer:
        async with open_websocket(*where, use_ssl=False, connect_timeout=0.5):
            pass
    print("connect_timeout=0.5 had not fired after 3 s:", outer.cancelled_caught)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(20):
            with trio.move_on_after(0.05):
                async with open_websocket(*where, use_ssl=False):
                    pass
    print("sockets left to the collector, of 20:", len(caught))


trio.run(main)

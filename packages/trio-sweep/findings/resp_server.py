"""A small RESP server, for the clients of Redis."""

from __future__ import annotations

import contextlib

import trio

HELLO = (
    b"%4\r\n$2\r\nid\r\n:7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"
    b"$7\r\nversion\r\n$5\r\n7.2.0\r\n$5\r\nproto\r\n:3\r\n"
)


async def serve(stream) -> None:
    """Answer GET with the key itself, after a tenth of a second."""
    buffer = b""

    async def take(what):
        nonlocal buffer
        while len(buffer) < what if isinstance(what, int) else what not in buffer:
            if not (data := await stream.receive_some()):
                raise EOFError
            buffer += data
        size = what if isinstance(what, int) else buffer.index(what) + len(what)
        taken, buffer = buffer[:size], buffer[size:]
        return taken

    with contextlib.suppress(EOFError, trio.BrokenResourceError, OSError):
        while True:
            words = []
            for _ in range(int((await take(b"\r\n"))[1:])):
                size = int((await take(b"\r\n"))[1:])
                words.append((await take(size + 2))[:-2])
            if words[0].upper() == b"GET":
                await trio.sleep(0.1)
                answer = b"$%d\r\n%b\r\n" % (len(words[1]), words[1])
            else:
                answer = HELLO if words[0].upper() == b"HELLO" else b"+OK\r\n"
            await stream.send_all(answer)

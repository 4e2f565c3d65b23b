"""Closing without waiting: the plain call for a stream, and what is left of a link."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import trio

CLOSED = "this connection was closed on our side"


async def wait_closed() -> None:
    """Refuse to wait for a link that was closed on this side."""
    raise trio.ClosedResourceError(CLOSED)


class ClosedLink:
    """Stands in for a link that was closed, so that its sockets and keys are freed.

    httpx's responses sit in a reference cycle, and hold on to their connection: what
    the connection holds must not wait for the garbage collector with them.
    """

    __slots__ = ()
    sent = 0

    async def wait(self) -> None:
        """Refuse: nothing will arrive."""
        await wait_closed()

    def unacknowledged(self) -> int:
        """Return 0: it cannot be known any more."""
        return 0

    def take(self) -> NoReturn:
        """Refuse: nothing will arrive."""
        raise trio.ClosedResourceError(CLOSED)

    def push(self, data: bytes) -> NoReturn:
        """Refuse: nothing can be sent."""
        raise trio.ClosedResourceError(CLOSED)

    async def flush(self) -> None:
        """Refuse: nothing can be sent."""
        raise trio.ClosedResourceError(CLOSED)

    def stale(self) -> bool:
        """Tell the truth."""
        return True

    def close(self) -> None:
        """Do nothing: it is closed."""


def closer(stream: trio.abc.AsyncResource) -> Callable[[], None]:
    """Find the plain call that closes a stream at once, through its wrappers.

    Errors: `TypeError` for a stream that can only be closed with an await: a cancelled
    task could not close it without waiting.
    """
    if isinstance(stream, trio.SocketStream):
        return stream.socket.close
    if isinstance(stream, trio.SSLStream):
        return closer(stream.transport_stream)
    if isinstance(stream, trio.StapledStream):
        close_send = closer(stream.send_stream)
        close_receive = closer(stream.receive_stream)

        def close_both() -> None:
            close_send()
            close_receive()

        return close_both
    close = getattr(stream, "close", None)
    if not callable(close):
        raise TypeError(
            "expected a stream with a plain close() method, got "
            f"{type(stream).__name__}; give it one that closes without waiting"
        )
    found: Callable[[], None] = close
    return found

"""One HTTP/2 stream's own accounts: credit owed, credit awaited, bytes left over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import trio
from hypercorn.protocol.events import Event

from trio_ai_stream.server.guard.stream import GuardedStream

if TYPE_CHECKING:
    from trio_ai_stream.server.guard.connection import Connection


class H2Stream(GuardedStream):
    """A request over HTTP/2."""

    def __init__(
        self,
        connection: Connection,
        send: Callable[[Event], Awaitable[None]],
        stream_id: int,
        repay: Callable[[H2Stream], None],
    ) -> None:
        super().__init__(connection, send, stream_id)
        self.inbox.on_taken = partial(repay, self)
        # Body bytes that the client has not been given credit for yet.
        self.owed_bytes = 0
        # What of the announced length has not come yet; None: none was announced.
        self.missing_bytes: int | None = None
        # When the request's end is due.
        self.body_deadline = inf
        # What a cancelled send has left; goes out in front of the next.
        self.rest = bytearray()
        # Set when the client may have opened a window.
        self.window: trio.Event | None = None

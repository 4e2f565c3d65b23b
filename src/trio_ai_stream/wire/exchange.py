"""What the server knows about one request that ASGI has no word for."""

from __future__ import annotations

from typing import Final

EXTENSION: Final = "trio_ai_stream.exchange"


class Exchange:
    """One request and its response, as the connection sees it.

    The guard puts a fresh one into `scope["extensions"][EXTENSION]` of each request. It
    sets `stalled` before it reports a client as gone whose writes made no progress. The
    application sets `body_follows` when the head that it is about to send may wait for
    the first piece of the body: one write instead of two.
    """

    __slots__ = ("body_follows", "stalled")

    def __init__(self) -> None:
        self.body_follows = False
        self.stalled = False

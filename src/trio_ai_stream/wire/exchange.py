"""What the server knows about one request that ASGI has no word for."""

from __future__ import annotations

from typing import Final

EXTENSION: Final = "trio_ai_stream.exchange"


class Exchange:
    """One request and its response, as the connection sees it.

    The guard puts a fresh one into `scope["extensions"][EXTENSION]` of each request. It
    sets `stalled` before it reports a client as gone whose writes made no progress.
    """

    __slots__ = ("stalled",)

    def __init__(self) -> None:
        self.stalled = False

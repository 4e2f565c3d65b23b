"""What the server knows about one request that ASGI has no word for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

EXTENSION: Final = "trio_ai_stream.exchange"


class Exchange:
    """One request and its response, as the connection sees it.

    The guard puts a fresh one into `scope["extensions"][EXTENSION]` of each request.

    `tells`: whether it says that the client is gone, in the very step that finds it
    out; ASGI's `receive` says it to a task, which must be there and get its turn.
    `bounds_body`: whether it ends a request whose body takes too long to arrive.
    `probes_only`: the process has run out of descriptors, and this connection has one
    of those that are kept back for whoever asks how it is.
    `delivered`: whether the kernel has taken the whole response, with nothing of it
    left here or lost with the connection; None: the server does not say.
    `stalled`: the client is gone because its writes made no progress. The application
    sets `body_follows` when the head that it is about to send may wait for the first
    piece of the body: one write instead of two.
    """

    __slots__ = (
        "_gone",
        "_on_gone",
        "body_follows",
        "bounds_body",
        "delivered",
        "probes_only",
        "stalled",
        "tells",
    )

    def __init__(
        self,
        *,
        tells: bool = False,
        bounds_body: bool = False,
        probes_only: bool = False,
    ) -> None:
        self.tells = tells
        self.bounds_body = bounds_body
        self.probes_only = probes_only
        self.body_follows = False
        self.delivered: bool | None = None
        self.stalled = False
        self._gone = False
        self._on_gone: Callable[[], None] | None = None

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Have `on_gone` called once the client is gone; at once, if it is gone."""
        self._on_gone = on_gone
        if self._gone:
            on_gone()

    def unwatch(self) -> None:
        """Call nobody any more."""
        self._on_gone = None

    def leave(self, *, stalled: bool = False) -> None:
        """Take note that the client is gone, and tell; synchronous and idempotent."""
        self.stalled = self.stalled or stalled
        if not self._gone:
            self._gone = True
            if self._on_gone is not None:
                self._on_gone()

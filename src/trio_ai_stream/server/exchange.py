"""What the server knows about one request that ASGI has no word for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

EXTENSION: Final = "trio_ai_stream.exchange"


class Exchange:
    """One request and its response, as the connection sees it.

    The server puts a fresh one into `scope["extensions"][EXTENSION]` of each request.

    `reports_disconnect`: the server calls `on_disconnect`'s callback in the very step
    that finds the client gone. ASGI's `receive` says it to a task, which must exist and
    get its turn.
    `limits_body_time`: the server ends a request whose body takes too long.
    `probes_only`: the process has run out of descriptors. This connection has one of
    the few that are kept for health checks.
    `delivered`: whether the kernel has taken the whole response, with nothing of it
    left here or lost with the connection; None: the server does not say.
    `stalled`: the client is gone because its writes made no progress.
    `body_follows`: set by the application when the head that it is about to send may
    wait for the first piece of the body: one write instead of two.
    """

    __slots__ = (
        "_disconnected",
        "_on_disconnect",
        "body_follows",
        "delivered",
        "limits_body_time",
        "probes_only",
        "reports_disconnect",
        "stalled",
    )

    def __init__(
        self,
        *,
        reports_disconnect: bool = False,
        limits_body_time: bool = False,
        probes_only: bool = False,
    ) -> None:
        self.reports_disconnect = reports_disconnect
        self.limits_body_time = limits_body_time
        self.probes_only = probes_only
        self.body_follows = False
        self.delivered: bool | None = None
        self.stalled = False
        self._disconnected = False
        self._on_disconnect: Callable[[], None] | None = None

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once the client is gone; at once, if it is gone."""
        self._on_disconnect = callback
        if self._disconnected:
            callback()

    def ignore_disconnect(self) -> None:
        """Call nothing any more."""
        self._on_disconnect = None

    def disconnect(self, *, stalled: bool = False) -> None:
        """Take note that the client is gone, and report it; idempotent."""
        self.stalled = self.stalled or stalled
        if not self._disconnected:
            self._disconnected = True
            if self._on_disconnect is not None:
                self._on_disconnect()

"""The end of a server: who asks for it, and in what order things stop.

Order: no new connections; the application is told (`begin_drain`) and so are HTTP/2
clients (GOAWAY); live exchanges go on for up to `drain_s`; then `end_streams`, and
`last_words_s` for the terminal events, less where nobody reads them; then every
connection is closed.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import trio


class Drainable(Protocol):
    """An application that can be drained; both calls come from the Trio thread."""

    def begin_drain(self) -> None:
        """Refuse what is new from now on, with 503; what is live goes on."""

    def end_streams(self) -> None:
        """Let each live stream say its terminal event now, and end."""


class Shutdown:
    """What has been asked for: to end, to end everywhere, to end without waiting."""

    def __init__(self, *, alone: bool) -> None:
        """Make one; `alone` if no other process shares the listening sockets."""
        self.requested = trio.Event()
        self.skipped = trio.Event()
        # The supervisor itself is ending, so the listening sockets, which all workers
        # share, may be made deaf.
        self.everywhere = trio.Event()
        self._alone = alone
        # What SIGHUP asks for; nothing until the server listens.
        self.on_reload: Callable[[], None] = lambda: None
        self._signalled = False

    def request(self, *, everywhere: bool = False) -> None:
        """Ask for the drain; idempotent."""
        self.requested.set()
        if everywhere or self._alone:
            self.everywhere.set()

    def skip(self) -> None:
        """Ask for the end of the drain."""
        self.request()
        self.skipped.set()

    async def obey(self, signals: AsyncIterator[int], *, patient: bool) -> None:
        """Drain on the first signal, skip the wait on the second.

        Signals are counted, not asking whether a drain is under way: a supervisor
        may have asked for it before a signal to the whole process group arrives here.

        :param patient: SIGTERM never skips. Hypercorn's parent repeats it to its other
            workers as soon as one has ended, and to all when it fails.
        """
        async for signum in signals:
            if signum == signal.SIGHUP:
                self.on_reload()
            elif not self._signalled:
                self._signalled = True
                self.request()
            elif signum == signal.SIGINT or not patient:
                self.skip()


async def first_of(*waits: Callable[[], object]) -> None:
    """Return when the first of the functions returns; the others are cancelled."""
    async with trio.open_nursery() as nursery:

        async def wait(one: Callable[..., object]) -> None:
            await one()  # type: ignore[misc]
            nursery.cancel_scope.cancel(reason="another wait is over")

        for one in waits:
            nursery.start_soon(wait, one)

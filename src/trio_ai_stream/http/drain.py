"""What the drain of this process waits for, and whom it tells.

Streams, and readers that came through another process: the stream of such a reader may
be a sibling's, and is lost to the reader when this process, between the two, ends.
"""

from __future__ import annotations

from trio_ai_stream.http.services import Services


class Drain:
    """The `Drainable` of a process."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def __len__(self) -> int:
        """Return how many streams live, or are read through other processes."""
        listeners = self._services.peer_listeners
        readers = sum(listener.exchanges for listener in listeners)
        return max(len(self._services.registry), readers)

    async def until_over(self) -> None:
        """Wait until no stream lives, and none is read from here."""
        while len(self):
            await self._services.registry.until_over()
            for listener in self._services.peer_listeners:
                await listener.until_quiet()

    def begin_drain(self) -> None:
        """Take no new streams from now on; those that live are read as before."""
        self._services.registry.begin_drain()

    def end_streams(self) -> bool:
        """Tell some live streams that the server goes away now, and whether not all."""
        return self._services.registry.end_streams()

"""The live streams of this process: by id, to list, to cancel, to drain."""

from __future__ import annotations

from collections.abc import Iterator

import trio

from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.record import Outcome


class Registry:
    """All live streams, and whether the server still takes new ones."""

    def __init__(self) -> None:
        self._live: dict[str, Stream] = {}
        self.draining = trio.Event()

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._live.values()))

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._live

    def __repr__(self) -> str:
        return f"<Registry live={len(self)} draining={self.draining.is_set()}>"

    def add(self, stream: Stream) -> None:
        """Enter a stream; its id must not be live."""
        assert stream.request_id not in self._live
        self._live[stream.request_id] = stream

    def remove(self, stream: Stream) -> None:
        """Take a stream out again."""
        del self._live[stream.request_id]

    def get(self, request_id: str) -> Stream | None:
        """Return the live stream of this id."""
        return self._live.get(request_id)

    def begin_drain(self) -> None:
        """Take no new streams from now on."""
        self.draining.set()

    def end_streams(self) -> None:
        """Tell each live stream that the server goes away now."""
        for stream in self:
            stream.stop(Outcome.SHUTDOWN)

"""Streams of other processes for the live view: heard of, not looked into.

A directory asks every process for its streams, which costs each of them something. So
all subscribers of one owner share what was heard, and it is asked for once a second at
most. A tree of tasks exists only where the tasks are: these streams come without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from trio_ai_stream.admission.directory import Entry, LocalDirectory, StreamDirectory
from trio_ai_stream.stream.snapshot import StreamView

ASK_S: Final = 1.0
# Owners whose subscribers have left are forgotten once there are more than subscribers.
MAX_OWNERS: Final = 64


@dataclass(slots=True)
class _Heard:
    asked_at: float
    streams: Sequence[StreamView] = field(default_factory=list)


class RemoteStreams:
    """What was last heard of other processes' streams, by owner."""

    def __init__(
        self, directory: StreamDirectory, is_here: Callable[[str], bool]
    ) -> None:
        self._directory = directory
        self._is_here = is_here
        self._heard: dict[str | None, _Heard] = {}

    async def streams(self, owner: str | None) -> Sequence[StreamView]:
        """Return them, asking first if it is time; the directory bounds its answer.

        *Cancellation:* what was heard before stands.
        """
        if isinstance(self._directory, LocalDirectory):
            return []
        now = trio.current_time()
        heard = self._heard.get(owner)
        if heard is not None and now - heard.asked_at < ASK_S:
            return heard.streams
        if heard is None:
            while len(self._heard) >= MAX_OWNERS:
                del self._heard[next(iter(self._heard))]
            heard = self._heard[owner] = _Heard(now)
        heard.asked_at = now  # so that other subscribers take the old answer until then
        listing = await self._directory.list_streams(owner)
        heard.streams = [
            view(entry, trio.current_time())
            for entry in listing.entries
            if not self._is_here(entry["id"])
        ]
        return heard.streams


def view(entry: Entry, now: float) -> StreamView:
    """Return a directory's entry (`wire.documents.StreamDocument`) as a view."""
    return StreamView(
        id=entry["id"],
        state=entry["state"],
        outcome=entry["outcome"],
        endpoint=entry["endpoint"],
        model=entry["model"],
        began_at=now - entry["age_s"],
        attempts=entry["attempts"],
        events=entry["events"],
        task=None,
        elsewhere=True,
        owner=entry["client"],
    )

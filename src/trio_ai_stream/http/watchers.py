"""Who watches the live streams, and what each still has to be told.

Nobody watching costs a stream one look at an empty set, when it ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from trio_ai_stream.wire.record import Record

# A watcher costs four looks a second; one at 40 streams took 1.1 ms (27 us a stream).
# So this many cost a full worker 7 % of its time at the very most.
MAX_WATCHERS: Final = 16
# Ended streams that a watcher keeps for its next tick; the oldest go first.
MAX_RECORDS: Final = 64


class Watcher:
    """One client of the live view; `sees` says whose streams it may see."""

    def __init__(self, sees: Callable[[str], bool]) -> None:
        self.sees = sees
        self._ended: deque[Record] = deque(maxlen=MAX_RECORDS)

    def note(self, record: Record) -> None:
        """Keep the record of a stream that has ended, if it may be seen."""
        if self.sees(record.owner):
            self._ended.append(record)

    def take(self) -> list[Record]:
        """Return the records since the last call."""
        records = list(self._ended)
        self._ended.clear()
        return records


class Watchers:
    """All watchers of one process."""

    def __init__(self, limit: int = MAX_WATCHERS) -> None:
        self._limit = limit
        self._watchers: set[Watcher] = set()

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def full(self) -> bool:
        """Whether there is no room for one more."""
        return len(self._watchers) >= self._limit

    @contextmanager
    def watch(self, watcher: Watcher) -> Iterator[Watcher]:
        """Enter a watcher for as long as the context lasts."""
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def stream_ended(self, record: Record) -> None:
        """Tell every watcher that may know."""
        for watcher in self._watchers:
            watcher.note(record)


def ended_view(record: Record) -> dict[str, Any]:
    """Return what a watcher is told of an ended stream; times in milliseconds."""
    return {
        "id": record.request_id,
        "endpoint": record.endpoint,
        "model": record.model,
        "outcome": record.outcome.value,
        "duration_ms": _ms(record.duration_s),
        "first_content_ms": _ms(record.first_content_s),
        "upstream_closed_ms": _ms(record.cancel_latency_s),
        "attempts": record.attempts,
        "events": record.events,
        "blocks": record.blocks,
        "bytes": record.bytes_out,
        "told": record.told,
        "finish_reason": record.finish_reason,
        "completion_tokens": record.completion_tokens,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)

"""The streams of this process: the live ones by id, and whose the ended ones were.

A directory gets them as plain JSON values. An entry may go to another process: it is
made where the stream lives, and is the same whichever way it goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgspec
import trio

from trio_ai_stream.stream.lifecycle import State
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.documents import Cancellation, StreamDocument
from trio_ai_stream.wire.record import Outcome, plain_word

# So many streams are looked at in one turn of the loop: a millisecond or two.
SLICE: Final = 100
# About two megabytes; the oldest goes first.
MAX_GENERATIONS: Final = 10_000


class Registry:
    """All live streams, and whether the server still takes new ones."""

    def __init__(self) -> None:
        self._live: dict[str, Stream] = {}
        # They are over; each has a task that reads the rest of upstream's answer.
        self.finishing: set[Stream] = set()
        self.draining = trio.Event()
        self._over: trio.Event | None = None
        self._generations: OrderedDict[str, str] = OrderedDict()  # to their owners

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
        """Take a stream out again, and remember whose generation it was."""
        del self._live[stream.request_id]
        if generation_id := plain_word(stream.answer.generation_id):
            self._generations[generation_id] = stream.owner
            if len(self._generations) > MAX_GENERATIONS:
                self._generations.popitem(last=False)
        if self._over is not None and not self._live:
            self._over.set()
            self._over = None

    def get(self, request_id: str) -> Stream | None:
        """Return the live stream of this id."""
        return self._live.get(request_id)

    async def until_over(self) -> None:
        """Wait until no stream lives."""
        while self._live:
            if self._over is None:
                self._over = trio.Event()
            await self._over.wait()

    def begin_drain(self) -> None:
        """Take no new streams from now on."""
        self.draining.set()

    def end_streams(self) -> bool:
        """Tell some live streams that the server goes away now; all but the told next.

        Return whether there are more: one turn of the loop must not tell thousands.
        """
        live = self._live.values()
        untold = (one for one in live if one.ending is None and not one.sealed)
        some = list(islice(untold, SLICE))
        for stream in some:
            stream.stop(Outcome.SHUTDOWN)
        return len(some) == SLICE

    # What a directory asks. `owner` is whose are meant, None means all.

    async def snapshot(self, owner: str | None) -> list[dict[str, Any]]:
        """Return the live streams, as `StreamDocument`s; other tasks run meanwhile.

        What ends meanwhile may be missing, and what begins is.
        """
        documents = []
        for number, stream in enumerate(self, 1):
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
            if stream.state is State.ENDED or owner not in {None, stream.owner}:
                continue
            documents.append(msgspec.to_builtins(_document(stream)))
        return documents

    def cancel(self, request_id: str, owner: str | None) -> dict[str, Any] | None:
        """Cancel a stream; return the `Cancellation`, None if it is not here.

        A stream that is ending already keeps its outcome; one whose document is on its
        way to the client is as good as completed.
        """
        stream = self.get(request_id)
        if stream is None or owner not in {None, stream.owner}:
            return None
        state = stream.shown_state
        stream.stop(Outcome.CANCELLED, detail="DELETE /streams")
        ending, latency = stream.ending, stream.cancel_latency_s
        outcome = Outcome.COMPLETED if ending is None else ending.outcome
        closed_ms = None if latency is None else round(1000 * latency, 3)
        result: dict[str, Any] = msgspec.to_builtins(
            Cancellation(
                id=stream.request_id,
                outcome=outcome.value,
                state=state,
                events=stream.events,
                upstream_closed_ms=closed_ms,
            )
        )
        return result

    def has_generation(self, generation_id: str, owner: str | None) -> bool:
        """Whether this process remembers a generation that `owner` may see."""
        found = self._generations.get(generation_id)
        return found is not None and owner in {None, found}


def _document(stream: Stream) -> StreamDocument:
    first, gone_at = stream.first_content_at, stream.detached_at
    now = trio.current_time()
    return StreamDocument(
        id=stream.request_id,
        client=stream.owner,
        model=stream.request.model,
        endpoint=stream.endpoint,
        state=stream.shown_state,
        age_s=round(now - stream.began_at, 3),
        first_content_s=None if first is None else round(first - stream.began_at, 3),
        attempts=stream.attempts,
        events=stream.events,
        bytes=stream.bytes_out,
        outcome=None if stream.ending is None else stream.ending.outcome.value,
        detached_s=None if gone_at is None else round(now - gone_at, 3),
    )

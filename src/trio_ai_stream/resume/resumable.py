"""One stream that outlives its connection: its log, its one reader, its grace.

The relay writes events into the log, and the request that is attached writes what the
log holds to its client. When the client is gone, the stream is *detached*: the grace's
deadline is set in that very step, and upstream is read on into the log. A client that
comes back attaches again, and the deadline is infinite again. When it is reached, the
stream ends as `abandoned`. All that ends other streams ends this one as well, at once.

While a reader is attached, the oldest of what it has had go when the log is full. While
none is, nothing goes: the relay waits, so upstream is not read, and no event is lost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from trio_ai_stream.resume.frame_log import FrameLog, LogBudget, is_comment
from trio_ai_stream.stream.lifecycle import Ending
from trio_ai_stream.stream.protocols import Responder
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.dialect import ErrorResponse, EventEncoder
from trio_ai_stream.wire.events import Answer, Item
from trio_ai_stream.wire.problems import Problem
from trio_ai_stream.wire.record import Outcome

logger = logging.getLogger(__name__)

# One write to a client that has much to catch up with.
PIECE_BYTES: Final = 65_536
SUPERSEDED: Final = Problem(
    409, "superseded", "another reader has taken this stream over; it goes on there"
)


class Attachment:
    """A reader of a resumable stream: one request, from its beginning to its end.

    The request holds it in place of a `Stream`. So it has `end` and `close`, which here
    only detach the stream.
    """

    def __init__(self, resumable: Resumable, cursor: int) -> None:
        self.resumable = resumable
        self.cursor = cursor  # the id of the last event that `receive` has returned
        self.delivered = cursor  # the same of the last that is written
        self.comment = b""  # a sign of life that is due
        self.superseded = False
        self.over = False  # what `receive` returned is the last

    @property
    def behind(self) -> bool:
        """Whether there are events that `receive` has not returned."""
        return self.cursor < self.resumable.log.last

    async def begun(self) -> ErrorResponse | None:
        """Wait until the status is known; return the response if it is an error.

        *Cancellation:* nothing is lost.
        """
        resumable = self.resumable
        while not (resumable.begun or self.superseded):
            await resumable.changed()
        if self.superseded and not resumable.begun:
            return resumable.stream.request.dialect.error(
                SUPERSEDED, resumable.stream.request_id
            )
        return resumable.refusal

    async def receive(self) -> bytes:
        """Return what is to be written next; wait for it. `over` says it is the last.

        *Cancellation:* nothing is lost.
        """
        await trio.lowlevel.checkpoint()
        resumable = self.resumable
        while True:
            if self.superseded:
                self.over = True
                return resumable.farewell()
            if self.behind:
                data, self.cursor = resumable.log.after(self.cursor, PIECE_BYTES)
                self.over = resumable.ended and self.cursor == resumable.log.last
                return data
            if resumable.ended:
                self.over = True
                return b""
            if self.comment:
                data, self.comment = self.comment, b""
                return data
            await resumable.changed()

    def written(self) -> None:
        """Take note that what `receive` returned has been written."""
        self.delivered = self.cursor
        self.resumable.tell()

    def finish(self, *, told: bool) -> None:
        """Take note that all has been written; `told`: it has left this process."""
        self.resumable.finish(self, told=told)

    def end(self, outcome: Outcome) -> None:
        """Detach the stream: its client is gone. Synchronous and idempotent.

        After a bug of ours the stream is ended as well.
        """
        if outcome is Outcome.INTERNAL_ERROR:
            self.resumable.stream.stop(outcome)
        self.resumable.detach(self)

    def close(self, *, outcome: Outcome) -> None:
        """Detach the stream, if it still is attached: the request is over."""
        self.end(outcome)


class Resumable:
    """A stream with a log; `run` is its life, in a nursery of the application's."""

    def __init__(
        self,
        stream: Stream,
        encoder: EventEncoder,
        budget: LogBudget,
        *,
        token: str,
        grace_s: float,
        log_bytes: int,
    ) -> None:
        self.stream = stream
        self.encoder = encoder
        self.grace_s = grace_s
        self.token = token
        self.log = FrameLog()
        self.begun = False  # the status is known
        self.refusal: ErrorResponse | None = None
        self.ended = False  # the log has its last event
        self.grace = stream.scopes["grace"] = trio.CancelScope()
        self.reader: Attachment | None = None
        self._told = False
        self._budget = budget
        self._log_bytes = log_bytes
        self._changed: trio.Event | None = None

    async def run(self, relay: Callable[[Responder], Awaitable[None]]) -> None:
        """Relay the stream into its log, then keep that for as long as its grace.

        *Cancellation:* the process ends; upstream is closed at once. *Errors:* none;
        our bugs are logged and end the stream as `internal_error`.
        """
        stream = self.stream
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._abandon, name=f"grace {stream.request_id}")
                await relay(_LogResponder(self))
                nursery.cancel_scope.cancel(reason="stream over")
        except Exception:
            logger.exception("stream failed")
            stream.end(Outcome.INTERNAL_ERROR)
        finally:
            self._note_attached()  # before the record, if our bug said no last event
            stream.close(outcome=Outcome.SHUTDOWN)
            self.end()
        await trio.sleep(self.grace_s)

    async def _abandon(self) -> None:
        """End the stream in the step in which its grace is over."""
        with self.grace:
            await trio.sleep_forever()
        self.stream.stop(Outcome.ABANDONED)

    # What the requests call.

    def attach(self, after: int) -> Attachment:
        """Return the reader from now on, of all after the id `after`; synchronous.

        A reader that the stream has is superseded.
        """
        if self.grace.cancel_called:  # this is the step in which the grace is over
            self.stream.stop(Outcome.ABANDONED)
        if self.reader is not None:
            self.reader.superseded = True
        self.grace.deadline = math.inf
        self._note_attached()
        self.reader = Attachment(self, after)
        self.tell()
        return self.reader

    def _note_attached(self) -> None:
        """Add the time without a reader up to now, or to the stream's ending, once."""
        stream = self.stream
        if stream.detached_at is not None:
            ending = stream.ending
            until = trio.current_time() if ending is None else ending.at
            stream.detached_s += until - stream.detached_at
            stream.detached_at = None

    def detach(self, reader: Attachment) -> None:
        """Let the stream go on without a reader, if this one still is its reader."""
        if self.reader is not reader:
            return
        self.reader = None
        if self.stream.ending is None:
            self.stream.detached_at = trio.current_time()
            self.grace.deadline = self.stream.detached_at + self.grace_s
        self.tell()

    def finish(self, reader: Attachment, *, told: bool) -> None:
        """Take note that this reader has had all, if it still is the reader."""
        if self.reader is reader:
            self._told = told
            self.reader = None
            self.tell()

    def farewell(self) -> bytes:
        """Return what a reader is told that is superseded; the stream goes on."""
        return self.encoder.error(SUPERSEDED, self.stream.answer)

    async def changed(self) -> None:
        """Wait until there is something new; the caller looks what."""
        await self._news().wait()

    def _news(self) -> trio.Event:
        if self._changed is None or self._changed.is_set():
            self._changed = trio.Event()
        return self._changed

    def tell(self) -> None:
        """Wake whoever waits for something new."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    # What the relay's side calls.

    def begin(self, refusal: ErrorResponse | None = None) -> None:
        """Take note of the status: 200, or that of an error."""
        self.begun = True
        self.refusal = refusal
        self.tell()

    def append(self, data: bytes) -> None:
        """Put encoded events into the log."""
        self._budget.take(self.log.append(data))
        self.tell()

    async def wait_for_room(self) -> None:
        """Wait until the log may take more; a checkpoint in any case.

        *Cancellation:* what has been appended stays.
        """
        await trio.lowlevel.checkpoint()
        while self._is_full():
            news = self._news()
            self._budget.wake(news)
            try:
                await news.wait()
            finally:
                self._budget.forget(news)

    def _is_full(self) -> bool:
        """Drop what the reader has had, as far as needed; whether it is still too much.

        What other streams hold never keeps a reader from its events.
        """
        budget, reader = self._budget, self.reader
        excess = max(self.log.size - self._log_bytes, budget.held - budget.limit)
        if excess <= 0 or reader is None:
            return excess > 0
        freed = self.log.drop(reader.delivered, excess)
        budget.give_back(freed)
        return excess > freed and reader.delivered < self.log.last

    def beat(self, data: bytes) -> None:
        """Have the reader, if there is one, told that the stream is alive."""
        if self.reader is None or not data:
            return
        if is_comment(data):
            self.reader.comment = data
            self.tell()
        else:
            self.append(data)

    def end(self) -> None:
        """Take note that the log has its last event; idempotent."""
        self._note_attached()
        self.begun = self.ended = True
        self.tell()

    async def told(self) -> bool:
        """Wait until the reader has had all or is gone; return whether it has."""
        while self.reader is not None:
            await self.changed()
        return self._told

    def release(self) -> None:
        """Give back what the log holds."""
        self._budget.give_back(self.log.size)
        self.log = FrameLog()


class _LogResponder:
    """What the relay writes goes into the log, as the dialect encodes it."""

    def __init__(self, resumable: Resumable) -> None:
        self._resumable = resumable
        self._opening = resumable.encoder.opening

    @property
    def held(self) -> tuple[int, int]:
        """What the encoder keeps for the end."""
        return self._resumable.encoder.held

    async def accepted(self) -> None:
        """Begin with the opening, if there is one, before upstream answers."""
        if self._opening:
            self._resumable.begin()
            self._resumable.append(self._take_opening())
            await self._resumable.wait_for_room()

    async def opened(self) -> None:
        """Take note that upstream answered 200."""
        if not self._resumable.begun:
            self._resumable.begin()

    async def deliver(self, items: Sequence[Item]) -> tuple[int, int]:
        """Log what a block holds for the client; return (events, bytes)."""
        frames, count = self._resumable.encoder.content(items)
        if frames:
            self._resumable.append(frames)
            await self._resumable.wait_for_room()
        return count, len(frames)

    async def heartbeat(self) -> None:
        """Give the reader a sign of life, if there is a reader."""
        await self.opened()
        self._resumable.beat(self._resumable.encoder.heartbeat())

    async def ended(self, ending: Ending, answer: Answer) -> bool:
        """Log the terminal event; return whether the reader has had it."""
        resumable, problem = self._resumable, ending.problem
        if problem is not None and not (resumable.begun or self._opening):
            request = resumable.stream.request
            resumable.begin(request.dialect.error(problem, request.request_id))
        else:
            await self.opened()
            ending_frame = resumable.encoder.ending(problem, answer)
            resumable.append(self._take_opening() + ending_frame)
        resumable.end()
        return await resumable.told()

    def _take_opening(self) -> bytes:
        """Return the opening once: a cancel may come between the head and it."""
        opening, self._opening = self._opening, b""
        return opening

"""Plays a script on a stream: waits, writes, and keeps the ledger.

One task, no scopes of its own: whoever calls it cancels it. Pauses are counted from
the beginning, so the schedule does not drift; after a blocked write the events that
have become due follow at once, as from a model that does not wait for its reader.

A phase is entered before its write, in the same step: a client may have read what was
sent, and be gone, before the task that sent it runs again.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from trio_ai_stream.simulator.ledger import Ledger
from trio_ai_stream.simulator.record import Mark, Record
from trio_ai_stream.simulator.response import LAST_CHUNK, chunk, head_bytes
from trio_ai_stream.simulator.steps import End, Head, Pause, Phase, Step, Write

_MARKS: dict[Phase, Mark] = {
    Phase.AWAITING_FIRST_TOKEN: "headers_sent",
    Phase.STREAMING: "first_token",
    Phase.FINISHING: "finish_sent",
}


class Player:
    """Plays the steps of one response; `chunked` unless its end is the close."""

    def __init__(
        self,
        stream: trio.abc.SendStream,
        ledger: Ledger,
        record: Record,
        *,
        chunked: bool,
        keep_alive: bool,
    ) -> None:
        self._stream = stream
        self._ledger = ledger
        self._record = record
        self._chunked = chunked
        self._keep_alive = keep_alive
        self._framed = False  # whether the body now sent is in chunks

    async def play(self, steps: Iterable[Step]) -> End:
        """Send everything; return how the connection is to be left.

        Raises trio.BrokenResourceError when the client is gone. Cancellation: the
        write in progress is not counted.
        """
        due = trio.current_time()
        for step in steps:
            if isinstance(step, Write):
                await self._write(step)
            elif isinstance(step, Pause):
                due += step.seconds
                if step.seconds and due > trio.current_time():
                    await trio.sleep_until(due)
            elif isinstance(step, Head):
                await self._head(step)
            else:
                return step
        if self._framed:
            await self._stream.send_all(LAST_CHUNK)
        return End.BODY

    async def _write(self, step: Write) -> None:
        data = chunk(step.data) if self._framed else step.data
        if step.last and self._framed:
            data += LAST_CHUNK
            self._framed = False
        if step.phase is not None and step.phase is not self._record.phase:
            self._enter(step.phase)
        await self._stream.send_all(data)
        self._ledger.sent(self._record, len(data), step.events, step.tokens)

    async def _head(self, head: Head) -> None:
        self._framed = head.length is None and self._chunked
        data = head_bytes(head, chunked=self._chunked, keep_alive=self._keep_alive)
        self._record.status = head.status
        self._enter(Phase.AWAITING_FIRST_TOKEN)
        await self._stream.send_all(data)

    def _enter(self, phase: Phase) -> None:
        self._ledger.mark(self._record, _MARKS[phase], phase)

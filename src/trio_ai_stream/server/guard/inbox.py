"""What the client has sent and the application has not yet taken, for one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

Message = dict[str, Any]


class Inbox:
    """A request's ASGI messages, bounded by bytes; a disconnect overtakes them.

    Unlike a memory channel it can be told synchronously that the client is gone, it
    never leaves its writer blocked once nobody will read, and it costs an event only
    while somebody waits.
    """

    __slots__ = (
        "_capacity",
        "_ended",
        "_gone",
        "_messages",
        "_reader",
        "_room",
        "on_taken",
        "queued_bytes",
    )

    def __init__(self, capacity_bytes: int) -> None:
        self._messages: list[Message] = []  # a few; a deque would be six times as big
        self.queued_bytes = 0
        # Called when the application has taken a message or takes no more.
        self.on_taken: Callable[[], None] | None = None
        self._capacity = capacity_bytes
        self._gone = False
        self._ended = False
        self._reader: trio.lowlevel.Task | None = None  # parked until there is news
        self._room: trio.Event | None = None

    def put_nowait(self, body: bytes, *, more_body: bool) -> None:
        """Append a part of the body."""
        if self._gone or self._ended:
            return
        self._messages.append(
            {"type": "http.request", "body": body, "more_body": more_body}
        )
        self.queued_bytes += len(body)
        self._rouse()

    @property
    def full(self) -> bool:
        """Whether more of the body should wait."""
        return self.queued_bytes > self._capacity and not (self._gone or self._ended)

    async def room(self) -> None:
        """Wait until the application has taken enough, or takes no more at all.

        Cancellation: nothing is lost, the body stays queued.
        """
        while self.full:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()

    def disconnect(self) -> None:
        """Tell the application that the client is gone; idempotent."""
        self._gone = True
        self._messages.clear()
        self.queued_bytes = 0
        self._rouse()
        self._make_room()

    def close(self) -> None:
        """Take note that the application has ended; idempotent."""
        self._ended = True
        self._messages.clear()
        self.queued_bytes = 0
        self._make_room()

    async def receive(self) -> Message:
        """Return the next message; after a disconnect always `http.disconnect`.

        It parks without an event, which every live stream would hold. Cancellation:
        no message is lost.

        :raises trio.BusyResourceError: another task waits for a message already.
        """
        if self._messages:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._gone:
                return {"type": "http.disconnect"}
            if self._reader is not None:
                raise trio.BusyResourceError("expected one task to receive, got two")
            self._reader = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)
        message = self._messages.pop(0)
        self.queued_bytes -= len(message["body"])
        if self.queued_bytes <= self._capacity:
            self._make_room()
        if self.on_taken is not None:
            self.on_taken()
        return message

    def _leave(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _rouse(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            trio.lowlevel.reschedule(reader)

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

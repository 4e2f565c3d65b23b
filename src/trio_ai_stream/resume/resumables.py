"""All resumable streams of a process: who gets a grace, who may come back."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from trio_ai_stream.resume.frame_log import LogBudget
from trio_ai_stream.resume.resumable import Attachment, Resumable
from trio_ai_stream.stream.protocols import Responder
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.dialect import EventEncoder
from trio_ai_stream.wire.problems import invalid

_TOKEN: Final = re.compile(r"([0-9a-f]{12})\.[\w-]{32}", re.ASCII)
_SECONDS: Final = re.compile(r"\d{1,9}(\.\d{1,9})?")


class Resumables:
    """The streams with a grace, until they are forgotten; `run` is their nursery.

    Their tokens begin with `process`, by which other processes find this one.
    """

    def __init__(
        self, process: str, *, max_s: float, log_bytes: int, total_bytes: int
    ) -> None:
        self.process = process
        self.max_s = max_s
        self.log_bytes = log_bytes
        self.budget = LogBudget(total_bytes)
        self.resumed = 0
        self.refused = 0  # asked for while all logs together were full
        self._known: dict[str, Resumable] = {}
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        return len(self._known)

    @property
    def detached(self) -> int:
        """How many live streams have no reader now."""
        known = self._known.values()
        return sum(one.stream.detached_at is not None for one in known)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Hold the streams until cancelled; then none goes on."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def grant(self, asked: str) -> float:
        """Return the seconds that a stream gets which asks for so many.

        :raises Refused: 400; this is no number of seconds.
        """
        if not _SECONDS.fullmatch(asked):
            message = f"expected a number of seconds, got {asked[:32]!r}"
            raise invalid("X-Stream-Grace", message)
        if self._nursery is None:
            return 0.0
        granted = min(float(asked), self.max_s)
        if granted and self.budget.full:
            self.refused += 1
            return 0.0
        return granted

    def begin(
        self,
        stream: Stream,
        encoder: EventEncoder,
        relay: Callable[[Responder], Awaitable[None]],
        *,
        grace_s: float,
        on_forgotten: Callable[[], None],
    ) -> Attachment:
        """Start a stream in a task of its own; return its first reader. Synchronous."""
        assert self._nursery is not None
        resumable = Resumable(
            stream,
            encoder,
            self.budget,
            token=f"{self.process}.{secrets.token_urlsafe(24)}",
            grace_s=grace_s,
            log_bytes=self.log_bytes,
        )
        self._known[stream.request_id] = resumable
        self._nursery.start_soon(
            self._live,
            resumable,
            relay,
            on_forgotten,
            name=f"stream {stream.request_id}",
        )
        return resumable.attach(0)

    async def _live(
        self,
        resumable: Resumable,
        relay: Callable[[Responder], Awaitable[None]],
        on_forgotten: Callable[[], None],
    ) -> None:
        try:
            try:
                await resumable.run(relay)
            finally:
                del self._known[resumable.stream.request_id]
                on_forgotten()
            await resumable.told()  # a reader that is not through yet
        finally:
            resumable.release()

    @staticmethod
    def owner_of(token: str) -> str | None:
        """Return the process that a token names, if it is one that ours look like."""
        named = _TOKEN.fullmatch(token)
        return None if named is None else named[1]

    def find(self, request_id: str, token: str) -> Resumable | None:
        """Return the stream of this id, if the token is its own."""
        resumable = self._known.get(request_id)
        if resumable is None or not hmac.compare_digest(
            resumable.token.encode(), token.encode("utf-8", "surrogatepass")
        ):
            return None
        return resumable

    def resume(self, resumable: Resumable, after: int) -> Attachment:
        """Attach a client that has come back for the events after the id `after`."""
        self.resumed += 1
        resumable.stream.resumes += 1
        return resumable.attach(after)

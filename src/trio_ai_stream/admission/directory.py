"""Which streams are alive, and cancelling one: here, or wherever it lives.

The process that owns a stream is the only one that knows it; nothing about streams is
copied anywhere. A directory asks the owners when somebody asks it, so what it says is
of that moment, and a cancel is done and answered by the owner. `LocalDirectory` knows
this process only; `SharedDirectory` (admission/shared) asks over Valkey, and
`PeerDirectory` (admission/peers) asks the workers of one host over Unix sockets.

Entries and results are plain JSON values: the stream's own room says what is in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Entry = Mapping[str, Any]

ANSWER_TIMEOUT_S = 0.5
"""What a listing or a cancel waits for other processes; a busy one answers in ms."""


class DirectoryUnavailableError(Exception):
    """Nobody could say whether the stream exists: 503, not 404."""


class LocalStreams(Protocol):
    """The live streams of this process; a cancel is synchronous.

    `owner` is the client whose streams may be seen; None sees all.
    """

    async def snapshot(self, owner: str | None) -> Sequence[Entry]:
        """Return the live streams that `owner` may see; others run meanwhile."""
        ...

    def cancel(self, request_id: str, owner: str | None) -> Entry | None:
        """Cancel one stream and say what was cancelled; None if it is not here."""
        ...


@dataclass(frozen=True, slots=True)
class Listing:
    """Streams that are alive; not `complete` if somebody did not answer in time."""

    entries: Sequence[Entry]
    complete: bool


class StreamDirectory(Protocol):
    """Finds streams, wherever they live."""

    async def list_streams(self, owner: str | None) -> Listing:
        """Return the live streams that `owner` may see; bounded in time."""
        ...

    async def cancel(self, request_id: str, owner: str | None) -> Entry | None:
        """Cancel a stream and return its owner's answer; None if nobody has it.

        :raises DirectoryUnavailableError: it may exist, but its owner can't be asked.
        """
        ...


class LocalDirectory:
    """The streams of this process."""

    def __init__(self, streams: LocalStreams) -> None:
        self._streams = streams

    async def list_streams(self, owner: str | None) -> Listing:
        """Return the live streams that `owner` may see."""
        return Listing(await self._streams.snapshot(owner), complete=True)

    async def cancel(self, request_id: str, owner: str | None) -> Entry | None:
        """Cancel a stream of this process; never waits."""
        return self._streams.cancel(request_id, owner)


async def answer(streams: LocalStreams, question: Entry) -> Any:
    """Answer another process's question about this one's streams."""
    match question:
        case {"ask": "list", "owner": str() | None as owner}:
            return list(await streams.snapshot(owner))
        case {"ask": "cancel", "id": str(request_id), "owner": str() | None as owner}:
            return streams.cancel(request_id, owner)
    return None


def list_question(owner: str | None) -> Entry:
    """Return the question for the streams that `owner` may see."""
    return {"ask": "list", "owner": owner}


def cancel_question(request_id: str, owner: str | None) -> Entry:
    """Return the question that cancels a stream if it is there."""
    return {"ask": "cancel", "id": request_id, "owner": owner}

"""Which streams are alive, where they live, and cancelling one wherever that is.

The process that owns a stream is the only one that knows it; nothing about streams is
copied anywhere. A directory asks the owners when somebody asks it, so what it says is
of that moment, and a cancel is done and answered by the owner. `LocalDirectory` knows
this process only; `SharedDirectory` (admission/shared) asks over Valkey, and
`PeerDirectory` (admission/peers) asks the workers of one host over Unix sockets.

Entries and results are plain JSON values: the stream's own room says what is in them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from trio_ai_stream.settings.values import PEER_HOST

Entry = Mapping[str, Any]
Address = tuple[str, int]
"""Host and port of a process; port 0: the Unix socket of that name on this host."""

# A host and its port, as a process has written them into Valkey.
_ADDRESS: Final = re.compile(rf"({PEER_HOST.pattern}) ([1-9][0-9]{{0,4}})")

# What a worker listens on for readers of its streams, in the run directory.
SOCKET_OF: Final = "streams-{}.sock"

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

    def has_generation(self, generation_id: str, owner: str | None) -> bool:
        """Whether `owner` may see a generation, and it was one of this process's."""
        ...


@dataclass(frozen=True, slots=True)
class Listing:
    """Streams that are alive; not `complete` if somebody did not answer in time."""

    entries: Sequence[Entry]
    complete: bool


class StreamDirectory(Protocol):
    """Finds streams, wherever they live; `process` is the name of this one."""

    process: str

    async def list_streams(self, owner: str | None) -> Listing:
        """Return the live streams that `owner` may see; bounded in time."""
        ...

    async def cancel(self, request_id: str, owner: str | None) -> Entry | None:
        """Cancel a stream and return its owner's answer; None if nobody has it.

        :raises DirectoryUnavailableError: it may exist, but its owner can't be asked.
        """
        ...

    async def has_generation(self, generation_id: str, owner: str | None) -> bool:
        """Whether a process remembers a generation that `owner` may see.

        :raises DirectoryUnavailableError: one that did not answer may do so.
        """
        ...

    async def address_of(self, process: str) -> Address | None:
        """Return where readers of a process's streams ask; None if it is gone.

        :raises DirectoryUnavailableError: nobody could say.
        """
        ...

    def address_here(self, process: str) -> Address | None:
        """Return the same of a process of this host."""
        ...


class LocalDirectory:
    """The streams of this process."""

    def __init__(self, streams: LocalStreams) -> None:
        self.process = name_process()
        self._streams = streams

    async def list_streams(self, owner: str | None) -> Listing:
        """Return the live streams that `owner` may see."""
        return Listing(await self._streams.snapshot(owner), complete=True)

    async def cancel(self, request_id: str, owner: str | None) -> Entry | None:
        """Cancel a stream of this process; never waits."""
        return self._streams.cancel(request_id, owner)

    async def has_generation(self, generation_id: str, owner: str | None) -> bool:
        """Whether this process remembers it; never waits."""
        return self._streams.has_generation(generation_id, owner)

    async def address_of(self, process: str) -> Address | None:
        """Return None: there is no other process."""
        return self.address_here(process)

    def address_here(self, process: str) -> Address | None:
        """Return None: there is no other process."""
        return None


def name_process() -> str:
    """Return a name that no other process has; it says nothing else."""
    return secrets.token_hex(6)


def read_address(text: bytes) -> Address | None:
    """Return the address that a process has told; None if it is none.

    It leads to no socket of this host: that is known here, and nobody need tell.
    """
    match = _ADDRESS.fullmatch(text.decode("ascii", "replace"))
    if match is None or int(match[2]) > 65535:
        return None
    return match[1], int(match[2])


def socket_of(process: str, folder: Path | None) -> Address | None:
    """Return the Unix socket of a worker of this host, if it has one."""
    name = SOCKET_OF.format(process)
    if folder is None or not (folder / name).is_socket():
        return None
    return name, 0


async def answer(streams: LocalStreams, question: Entry) -> Any:
    """Answer another process's question about this one's streams."""
    match question:
        case {"ask": "list", "owner": str() | None as owner}:
            return list(await streams.snapshot(owner))
        case {"ask": "cancel", "id": str(request_id), "owner": str() | None as owner}:
            return streams.cancel(request_id, owner)
        case {"ask": "generation", "id": str(name), "owner": str() | None as owner}:
            return streams.has_generation(name, owner)
    return None


def list_question(owner: str | None) -> Entry:
    """Return the question for the streams that `owner` may see."""
    return {"ask": "list", "owner": owner}


def cancel_question(request_id: str, owner: str | None) -> Entry:
    """Return the question that cancels a stream if it is there."""
    return {"ask": "cancel", "id": request_id, "owner": owner}


def generation_question(generation_id: str, owner: str | None) -> Entry:
    """Return the question whether a process remembers a generation of `owner`'s."""
    return {"ask": "generation", "id": generation_id, "owner": owner}

"""Which streams are alive, where they live, and cancelling one wherever that is.

The process that owns a stream is the only one that knows it; nothing about streams is
copied anywhere. A directory asks the owners when somebody asks it, so what it says is
of that moment, and a cancel is done and answered by the owner. Entries and results are
plain JSON values: the stream's own room says what is in them.

`LocalDirectory` knows this process only; `SharedDirectory` (admission/shared) asks over
Valkey. Without Valkey the workers of one host ask each other (`PeerDirectory`). Every
worker listens on a Unix socket in the directory that the workers of one server share
(telemetry/run_directory), which only their user may enter. A question is one line of
JSON on a connection of its own, and so is the answer. There is nothing to keep in step:
a worker that has died refuses connections, and its socket is removed by whoever finds
that out. Limits are not shared this way: a decision must be quick and atomic.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import trio

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


class StreamDirectory(ABC):
    """Finds streams, here and wherever else they live.

    `process` is the name of this one.
    """

    def __init__(self, process: str, streams: LocalStreams) -> None:
        self.process = process
        self._streams = streams

    @abstractmethod
    async def list_streams(self, owner: str | None) -> Listing:
        """Return the live streams that `owner` may see; bounded in time."""

    async def cancel(self, request_id: str, owner: str | None) -> Entry | None:
        """Cancel a stream and return its owner's answer; None if nobody has it.

        :raises DirectoryUnavailableError: it may exist, but its owner can't be asked.
        """
        here = self._streams.cancel(request_id, owner)
        if here is not None:
            return here
        question = {"ask": "cancel", "id": request_id, "owner": owner}
        found: Entry | None = await self._find(question)
        return found

    async def has_generation(self, generation_id: str, owner: str | None) -> bool:
        """Whether a process remembers a generation that `owner` may see.

        :raises DirectoryUnavailableError: one that did not answer may do so.
        """
        if self._streams.has_generation(generation_id, owner):
            return True
        question = {"ask": "generation", "id": generation_id, "owner": owner}
        return await self._find(question) is not None

    async def address_of(self, process: str) -> Address | None:
        """Return where readers of a process's streams ask; None if it is gone.

        :raises DirectoryUnavailableError: nobody could say.
        """
        return self.address_here(process)

    @abstractmethod
    def address_here(self, process: str) -> Address | None:
        """Return the same of a process of this host."""

    @abstractmethod
    async def _find(self, question: Entry) -> Any:
        """Return the answer of another process that has what is asked for, or None.

        :raises DirectoryUnavailableError: one that did not answer may have it.
        """


class LocalDirectory(StreamDirectory):
    """The streams of this process, and there is no other one; never waits."""

    def __init__(self, streams: LocalStreams) -> None:
        super().__init__(name_process(), streams)

    async def list_streams(self, owner: str | None) -> Listing:
        """Return the live streams that `owner` may see."""
        return Listing(await self._streams.snapshot(owner), complete=True)

    def address_here(self, process: str) -> Address | None:
        """Return None."""
        return None

    async def _find(self, question: Entry) -> None:
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


LONGEST_LINE = 8 * 1024 * 1024
"""Bytes of one answer: some ten thousand streams."""

LONGEST_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""

_PATTERN = "peer-*.sock"


class PeerDirectory(StreamDirectory):
    """Finds streams in this worker and in its siblings."""

    def __init__(
        self,
        folder: Path,
        streams: LocalStreams,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        super().__init__(name_process(), streams)
        self._path = folder / f"peer-{self.process}.sock"
        self._timeout_s = timeout_s

    async def list_streams(self, owner: str | None) -> Listing:
        """Return the live streams that `owner` may see, from all who answer in time."""
        question = {"ask": "list", "owner": owner}
        answers, complete = await self._ask_others(question)
        entries = list(await self._streams.snapshot(owner))
        entries += [entry for found in answers if found for entry in found]
        return Listing(entries, complete)

    def address_here(self, process: str) -> Address | None:
        """Return the worker's socket, if it has one."""
        return socket_of(process, self._path.parent)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer the siblings until cancelled; started once they can ask.

        :raises OSError: the socket cannot be made; the text says what to do.
        """
        if len(os.fsencode(self._path)) > LONGEST_PATH:
            raise OSError(
                f"the workers' sockets: expected a path of {LONGEST_PATH} bytes at"
                f" most, got {self._path}; set TMPDIR to a shorter one"
            )
        with trio.socket.socket(trio.socket.AF_UNIX) as listening:
            await listening.bind(str(self._path))
            listening.listen()
            listener = trio.SocketListener(listening)
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(trio.serve_listeners, self._serve, [listener])
                    task_status.started()
            finally:
                _remove(self._path)

    async def _serve(self, sibling: trio.SocketStream) -> None:
        with trio.move_on_after(self._timeout_s):
            async with sibling:
                try:
                    question = json.loads(await _read_line(sibling))
                    reply = await answer(self._streams, question)
                    await sibling.send_all(msgspec.json.encode(reply) + b"\n")
                except (ValueError, trio.BrokenResourceError):
                    return  # a sibling that died, or is of another version

    async def _find(self, question: Entry) -> Any:
        answers, complete = await self._ask_others(question)
        found = next(filter(None, answers), None)
        if found is None and not complete:
            raise DirectoryUnavailableError("a worker did not answer")
        return found

    async def _ask_others(self, question: Entry) -> tuple[list[Any], bool]:
        """Return the siblings' answers, and whether all of them answered in time."""
        answers: list[Any] = []
        others = [p for p in self._path.parent.glob(_PATTERN) if p != self._path]
        unanswered = set(others)

        async def ask(path: Path) -> None:
            with contextlib.suppress(OSError, ValueError, trio.BrokenResourceError):
                answers.append(await _ask(path, question))
                unanswered.discard(path)

        with trio.move_on_after(self._timeout_s):
            async with trio.open_nursery() as nursery:
                for path in others:
                    nursery.start_soon(ask, path)
        return answers, not unanswered


async def _ask(path: Path, question: Entry) -> Any:
    """Return one sibling's answer; None from one that has died.

    :raises OSError: it may be alive, but can't be asked (no descriptors left).
    :raises trio.BrokenResourceError: so may it, and the connection broke. That is also
        how a full queue of connections shows, for Trio takes it for a connection.
    :raises ValueError: what it said is no answer, or too long.
    """
    try:
        stream = await trio.open_unix_socket(path)
    except FileNotFoundError:
        return None
    except ConnectionRefusedError:
        _remove(path)
        return None
    async with stream:
        await stream.send_all(json.dumps(question).encode() + b"\n")
        return json.loads(await _read_line(stream))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone, or on a disk that has become read-only
        path.unlink()


async def _read_line(stream: trio.SocketStream) -> bytes:
    """Return what comes before the newline.

    :raises ValueError: the line is too long, or the stream ended before its end.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        data = await stream.receive_some()
        line += data
        if not data or len(line) > LONGEST_LINE:
            raise ValueError(f"expected a line, got {len(line)} bytes without an end")
    return bytes(line)

"""The streams of all workers of one host, without Valkey: each asks the others.

Every worker listens on a Unix socket in the directory that the workers of one server
share (telemetry/run_directory), which only their user may enter. A question is one line
of JSON on a connection of its own, and so is the answer. There is nothing to keep in
step: a worker that has died refuses connections, and its socket is removed by whoever
finds that out.

Limits are not shared this way, because a decision must be quick and atomic. With
WORKERS > 1 and no REDIS_URL they hold for each worker.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import trio

from trio_ai_stream.admission.directory import (
    ANSWER_TIMEOUT_S,
    Address,
    DirectoryUnavailableError,
    Entry,
    Listing,
    LocalStreams,
    answer,
    cancel_question,
    generation_question,
    list_question,
    name_process,
    socket_of,
)

LONGEST_LINE = 8 * 1024 * 1024
"""Bytes of one answer: some ten thousand streams."""

LONGEST_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""

_PATTERN = "peer-*.sock"


class PeerDirectory:
    """Finds streams in this worker and in its siblings."""

    def __init__(
        self,
        folder: Path,
        streams: LocalStreams,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self.process = name_process()
        self._path = folder / f"peer-{self.process}.sock"
        self._streams = streams
        self._timeout_s = timeout_s

    async def list_streams(self, owner: str | None) -> Listing:
        """Return the live streams that `owner` may see, from all who answer in time."""
        answers, complete = await self._ask_others(list_question(owner))
        entries = list(await self._streams.snapshot(owner))
        entries += [entry for found in answers if found for entry in found]
        return Listing(entries, complete)

    async def cancel(self, request_id: str, owner: str | None) -> Entry | None:
        """Cancel a stream and return its owner's answer; None if nobody has it.

        :raises DirectoryUnavailableError: a worker did not answer in time.
        """
        here = self._streams.cancel(request_id, owner)
        if here is not None:
            return here
        question = cancel_question(request_id, owner)
        answers, complete = await self._ask_others(question)
        found = next((entry for entry in answers if entry), None)
        if found is None and not complete:
            raise DirectoryUnavailableError("a worker did not answer")
        return found

    async def has_generation(self, generation_id: str, owner: str | None) -> bool:
        """Whether a worker remembers it.

        :raises DirectoryUnavailableError: a worker did not answer in time.
        """
        if self._streams.has_generation(generation_id, owner):
            return True
        question = generation_question(generation_id, owner)
        answers, complete = await self._ask_others(question)
        if True not in answers and not complete:
            raise DirectoryUnavailableError("a worker did not answer")
        return True in answers

    async def address_of(self, process: str) -> Address | None:
        """Return the worker's socket, if it has one."""
        return self.address_here(process)

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

    async def _ask_others(self, question: Entry) -> tuple[list[Any], bool]:
        """Return the siblings' answers, and whether all of them answered in time."""
        answers: list[Any] = []
        others = [p for p in self._path.parent.glob(_PATTERN) if p != self._path]
        unanswered = set(others)

        async def ask(path: Path) -> None:
            with contextlib.suppress(OSError):
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
    """
    try:
        stream = await trio.open_unix_socket(path)
    except FileNotFoundError:
        return None
    except ConnectionRefusedError:
        _remove(path)
        return None
    async with stream:
        try:
            await stream.send_all(json.dumps(question).encode() + b"\n")
            return json.loads(await _read_line(stream))
        except (ValueError, trio.BrokenResourceError):
            return None


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


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

"""The streams of all workers and hosts, by asking their owners over Valkey.

A listing asks every process. A cancel asks the one process that holds the stream's
permit, which the permits' own index names; so it costs two round trips and one answer,
however large the fleet. A stream that nobody holds is a 404 after one round trip.
"""

from __future__ import annotations

from functools import partial

from trio_ai_stream.admission.directory import (
    ANSWER_TIMEOUT_S,
    DirectoryUnavailableError,
    Entry,
    Listing,
    LocalStreams,
    answer,
    cancel_question,
    list_question,
)
from trio_ai_stream.admission.shared.bus import Bus
from trio_ai_stream.admission.shared.gate import SharedGate
from trio_ai_stream.admission.shared.outage import Unavailable
from trio_ai_stream.admission.shared.scripts import OWNER


class SharedDirectory:
    """Finds streams through the gate's link; make it before the gate runs."""

    def __init__(
        self,
        gate: SharedGate,
        streams: LocalStreams,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._gate = gate
        self._streams = streams
        reply = partial(answer, streams)
        self._bus = Bus(gate.link, gate.keys, reply, timeout_s=timeout_s)
        gate.add_work([self._bus.run])

    async def list_streams(self, owner: str | None) -> Listing:
        """Return the live streams that `owner` may see, from all who answer in time.

        Without Valkey: this process's, and not complete.
        """
        try:
            answers, complete = await self._bus.ask(list_question(owner))
        except Unavailable:
            return Listing(self._streams.snapshot(owner), complete=False)
        entries = [entry for found in answers if found for entry in found]
        return Listing(entries, complete)

    async def cancel(self, request_id: str, owner: str | None) -> Entry | None:
        """Cancel a stream and return its owner's answer; None if nobody has it.

        :raises DirectoryUnavailableError: Valkey, or the owner, did not answer in time.
        """
        here = self._streams.cancel(request_id, owner)
        if here is not None:
            return here
        try:
            process = await self._holder(request_id)
            if process is None:
                return None
            question = cancel_question(request_id, owner)
            answers, complete = await self._bus.ask(question, process)
            if complete and not any(answers):
                # Another client's stream has that id too, or its owner has just gone.
                answers, complete = await self._bus.ask(question)
        except Unavailable as exc:
            raise DirectoryUnavailableError(str(exc)) from exc
        found = next((entry for entry in answers if entry), None)
        if found is None and not complete:
            raise DirectoryUnavailableError("the stream's owner did not answer")
        return found

    async def _holder(self, request_id: str) -> str | None:
        """Return the process that holds the stream's permit."""
        keys = self._gate.keys
        arguments = [keys.of, keys.process, 0, request_id]
        entry = await self._gate.link.call(OWNER, keys.permits, arguments)
        return None if entry is None else bytes(entry).decode().partition(" ")[0]

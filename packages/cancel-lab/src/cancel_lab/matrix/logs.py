"""The server's own word: its ``stream ended`` records, stamped as they are read."""

from __future__ import annotations

import json
from typing import Any

from cancel_lab.process import Server

Ended = tuple[int, dict[str, Any]]


class Log:
    """Reads a server's JSON lines; holds the ended streams by request id."""

    def __init__(self, server: Server) -> None:
        """Read from the first line on."""
        self._server = server
        self._read = 0
        self._ended: dict[str, list[Ended]] = {}
        self.errors: list[str] = []

    async def ended(self, request_id: str) -> Ended:
        """Return when a stream's record came, and the record; wait if need be."""
        while not self.records(request_id):
            await self._server.line_after(self._read)
        return self.records(request_id)[0]

    def records(self, request_id: str) -> list[Ended]:
        """Return the records of a stream so far; one is right, two are a defect."""
        for stamp, line in self._server.lines[self._read :]:
            self._take(stamp, line)
        self._read = len(self._server.lines)
        return self._ended.get(request_id, [])

    def _take(self, stamp: int, line: bytes) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            return
        if not isinstance(record, dict):
            return
        if record.get("event") == "stream_ended":
            request_id = str(record.get("request_id"))
            self._ended.setdefault(request_id, []).append((stamp, record))
        elif str(record.get("level", "")).upper() in ("ERROR", "CRITICAL"):
            self.errors.append(str(record.get("message", ""))[:200])

"""A Chrome trace on disk: written as it happens, bounded, readable if cut short.

The array form of the Trace Event Format (Chromium project) may lack its closing
bracket, so the trace of a process that died opens in ui.perfetto.dev all the same.
Times are microseconds. A write goes to the page cache, from the Trio thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Self

import msgspec

LIMIT_BYTES: Final = 64 * 1024 * 1024  # about half a million steps
_FLUSH_BYTES: Final = 65_536
_encode = msgspec.json.Encoder().encode


class TraceSink:
    """Appends events until `limit_bytes`; then says so in the trace, and stops."""

    def __init__(
        self, path: Path, *, title: str, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.dropped = 0
        self._left = limit_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._separator = b"[\n"
        self._file = path.open("wb")
        self.write({"ph": "M", "name": "process_name", "args": {"name": title}})

    def write(self, event: dict[str, Any]) -> None:
        """Append one event; `pid` and `tid` default to 1 and 0."""
        line = self._separator + _encode({"pid": 1, "tid": 0, **event})
        if len(line) > self._left:
            self.dropped += 1
            if self.dropped > 1:
                return
            full = {"ph": "i", "s": "g", "name": "trace full", "ts": event.get("ts", 0)}
            line = self._separator + _encode({"pid": 1, "tid": 0, **full})
        self._separator = b",\n"
        self._left -= len(line)
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes > _FLUSH_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end of the array."""
        self._pending.append(b"\n]\n")
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        self._file.write(b"".join(self._pending))
        self._file.flush()
        self._pending.clear()
        self._pending_bytes = 0

    def __enter__(self) -> Self:
        """Return the sink itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

"""HTTP/1.1 responses as bytes: heads, chunks, and short responses in one piece.

Pure. Framing by RFC 9112: a known length, chunks, or the end of the connection.
"""

from __future__ import annotations

from collections.abc import Iterable

from trio_ai_stream.simulator.errors import ERRORS
from trio_ai_stream.simulator.steps import Head, Step, Write

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </api/v1/models>; rel=preload\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_PHRASES = {200: "OK", 431: "Request Header Fields Too Large"} | {
    status: known.phrase for status, known in ERRORS.items()
}


def head_bytes(head: Head, *, chunked: bool, keep_alive: bool) -> bytes:
    """Return a response head; `chunked` matters only where it has no length."""
    phrase = _PHRASES.get(head.status, "Unknown")
    lines = [f"HTTP/1.1 {head.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in head.headers]
    if head.length is not None:
        lines.append(f"Content-Length: {head.length}")
    elif chunked:
        lines.append("Transfer-Encoding: chunked")
    if not keep_alive:
        lines.append("Connection: close")
    text = "\r\n".join((*lines, "", ""))
    return (INTERIM if head.interim else b"") + text.encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Return one chunk; no data gives nothing, for an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def short_response(steps: Iterable[Step], *, keep_alive: bool) -> bytes:
    """Return a response whose steps are one head with a length, and writes."""
    parts = [
        head_bytes(step, chunked=False, keep_alive=keep_alive)
        if isinstance(step, Head)
        else step.data
        for step in steps
        if isinstance(step, Head | Write)
    ]
    return b"".join(parts)

"""An HTTP/1.1 request's head: whether it may pass, and what it says.

h11 reads a request leniently in ways that matter: it bounds only what has not yet
arrived whole, it takes a length beside a transfer coding, it unfolds folded fields, and
it takes any byte in a chunk's extension. All but the first let a proxy in front see
another framing than we do.
"""

from __future__ import annotations

import re
from typing import Final

import h11
from hypercorn.config import Config

from trio_ai_stream.server.guard.head import RequestHead, make_head
from trio_ai_stream.server.limits import Limits

_END: Final = re.compile(rb"\n\r?\n")
_FOLD: Final = re.compile(rb"\n[ \t]")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)([^#]*)", re.IGNORECASE)
_EMPTY_LINES: Final = re.compile(rb"(?:\r?\n)*")
# The line that a chunk begins with, as far as it is there, behind the last one's end.
_CHUNK_LINE: Final = re.compile(rb"(?:\r?\n)?+[^\r\n\0]*+(?:\r\n|\r?\Z)")


def read_request(
    request: h11.Request, raw: bytes, config: Config, limits: Limits
) -> RequestHead | int:
    """Return a request's head, or the status that refuses it.

    :param raw: the bytes that h11 has made it from, and perhaps more.
    """
    if request.http_version not in {b"1.0", b"1.1"}:
        return 505
    headers = list(request.headers)
    size = len(request.method) + len(request.target)
    size += sum(len(name) + len(value) for name, value in headers)
    if size > limits.header_bytes:
        return 431
    names = {name for name, _ in headers}
    if {b"content-length", b"transfer-encoding"} <= names:
        return 400  # RFC 9112 6.3: the stuff of request smuggling
    if _folded(raw):
        return 400  # RFC 9112 5.2 leaves the choice
    target = request.target
    # Its Host field counts for nothing then (RFC 9112 3.2.2).
    if absolute := _ABSOLUTE.fullmatch(target):
        authority, target = absolute.groups()
        headers = [(b"host", authority), *(h for h in headers if h[0] != b"host")]
        if not target.startswith(b"/"):
            server_wide = request.method == b"OPTIONS" and not target
            target = b"*" if server_wide else b"/" + target
    return make_head(config, request.method, target, headers)


def _folded(raw: bytes) -> bool:
    end = _END.search(raw)
    return _FOLD.search(raw, 0, end.start() if end else len(raw)) is not None


def skip_empty_lines(raw: bytes) -> bytes:
    """Return what follows the empty lines before a request (RFC 9112 2.2)."""
    return _EMPTY_LINES.sub(b"", raw, count=1)


def bad_chunk_line(raw: bytes) -> bool:
    """Tell whether a chunk's first line has a bare CR, a bare LF or a NUL.

    :param raw: the bytes behind the last chunk's data; the line may not be whole.
    """
    return _CHUNK_LINE.match(raw) is None

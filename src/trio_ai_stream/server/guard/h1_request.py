"""An HTTP/1.1 request's head: whether it may pass.

h11 reads a head leniently in three ways that matter: it bounds only what has not yet
arrived whole, it takes a length beside a transfer coding, and it unfolds folded fields.
The last two let a proxy in front see another framing than we do.
"""

from __future__ import annotations

import re
from typing import Final

import h11
from hypercorn.config import Config

from trio_ai_stream.server.guard.phases import judge
from trio_ai_stream.server.limits import Limits

_END: Final = re.compile(rb"\n\r?\n")
_FOLD: Final = re.compile(rb"\n[ \t]")


def judge_request(
    request: h11.Request, raw: bytes, config: Config, limits: Limits
) -> int | None:
    """Return the status that refuses a request, None if it may pass.

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
    return judge(config, request.method, request.target, headers)


def _folded(raw: bytes) -> bool:
    end = _END.search(raw)
    return _FOLD.search(raw, 0, end.start() if end else len(raw)) is not None

"""An HTTP/2 request's head: whether it may pass, and what it says.

h2 would answer a malformed head by ending the connection, with every stream on it. RFC
9113 8.1.1 makes it an error of the one stream, so h2's own check is asked for here, one
request at a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, cast

from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers
from hypercorn.config import Config
from hypercorn.utils import filter_pseudo_headers

from trio_ai_stream.server.guard.phases import judge
from trio_ai_stream.server.limits import Limits

Headers = list[tuple[bytes, bytes]]

# What one field counts for besides its bytes (RFC 9113 6.5.2).
_FIELD_OVERHEAD: Final = 32
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST: Final = HeaderValidationFlags(
    is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A head that may pass."""

    method: str
    target: bytes
    headers: Headers


def read_head(fields: object, config: Config, limits: Limits) -> RequestHead | int:
    """Return the head that `fields` make, or the status that refuses them."""
    given = cast("Headers", fields or [])
    size = sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in given)
    if size > limits.header_bytes:
        return 431
    pseudo = {name: value for name, value in given if name.startswith(b":")}
    method = pseudo.get(b":method", b"")
    if method == b"CONNECT":
        return 501
    try:
        list(validate_headers(given, _REQUEST))
    except ProtocolError:
        return 400
    if not _TOKEN.fullmatch(method):
        return 400
    target = pseudo.get(b":path", b"")
    headers = filter_pseudo_headers(given)
    status = judge(config, method, target, headers)
    if status is not None:
        return status
    return RequestHead(method.decode("ascii").upper(), target, headers)

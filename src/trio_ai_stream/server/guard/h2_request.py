"""An HTTP/2 request's fields: whether they may pass, and what they say.

h2 would answer malformed fields by ending the connection, with every stream on it. RFC
9113 8.1.1 makes them an error of the one stream, so h2's own check is asked for here,
one request at a time.
"""

from __future__ import annotations

import re
from typing import Final, cast

from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers
from hypercorn.config import Config
from hypercorn.utils import filter_pseudo_headers

from trio_ai_stream.server.guard.head import Headers, RequestHead, make_head
from trio_ai_stream.server.limits import Limits

# What one field counts for besides its bytes (RFC 9113 6.5.2).
_FIELD_OVERHEAD: Final = 32
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")
_REQUEST: Final = HeaderValidationFlags(
    is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
)
_TRAILERS: Final = _REQUEST._replace(is_trailer=True)


def read_head(fields: object, config: Config, limits: Limits) -> RequestHead | int:
    """Return the head that `fields` make, or the status that refuses them."""
    given = cast("Headers", fields or [])
    pseudo = {name: value for name, value in given if name.startswith(b":")}
    method = pseudo.get(b":method", b"")
    status = _judge(given, _REQUEST, limits)
    if status != 431 and method == b"CONNECT":
        return 501
    if status is not None:
        return status
    if not _TOKEN.fullmatch(method):
        return 400
    target = pseudo.get(b":path", b"")
    return make_head(config, method, target, filter_pseudo_headers(given))


def judge_trailers(fields: object, limits: Limits) -> int | None:
    """Return the status that refuses these trailers, None if they may pass."""
    return _judge(cast("Headers", fields or []), _TRAILERS, limits)


def _judge(fields: Headers, flags: HeaderValidationFlags, limits: Limits) -> int | None:
    size = sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in fields)
    if size > limits.header_bytes:
        return 431
    try:
        list(validate_headers(fields, flags))
    except ProtocolError:
        return 400
    return None


def announced_length(headers: Headers) -> int | None:
    """Return the length that a request says its body has, None if it says none.

    :raises ValueError: what it says is no length, or it says more than one.
    """
    said = [value for name, value in headers if name == b"content-length"]
    if not said:
        return None
    if len(said) > 1 or not _LENGTH.fullmatch(said[0]):
        raise ValueError("expected one length of at most 19 digits")
    return int(said[0])


def expects_continue(headers: Headers) -> bool:
    """Tell whether the client waits to be told to go on (RFC 9110 10.1.1)."""
    return any(
        name == b"expect" and value.lower() == b"100-continue"
        for name, value in headers
    )

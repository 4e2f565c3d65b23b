"""A request's head as both versions of HTTP make it, and whether it may pass."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, cast

from hypercorn.config import Config
from hypercorn.protocol.events import Request
from hypercorn.utils import valid_server_name

Headers = list[tuple[bytes, bytes]]

# RFC 3986 3.2.2 and 3.2.3, without userinfo: RFC 9110 4.2.4 tells recipients to treat
# it as an error, since it hides the host's name from people.
_AUTHORITY: Final = re.compile(
    rb"(?:\[[0-9A-Fa-fv:.]+\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?"
)
_VISIBLE: Final = re.compile(rb"[!-~]+")


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A head that may pass."""

    method: str
    target: bytes
    headers: Headers


def make_head(
    config: Config, method: bytes, target: bytes, headers: Headers
) -> RequestHead | int:
    """Return the head, or the status that refuses it; `headers` have one host at most.

    The forms of a target are RFC 9112 3.2; CONNECT asks for a tunnel, which this server
    does not have (RFC 9110 9.3.6). Methods are case-sensitive (9.1): "head" is not
    HEAD, but ASGI's upper case would make it so, with a body that HTTP then awaits.
    """
    if method == b"CONNECT" or not method.isupper():
        return 501
    if not _VISIBLE.fullmatch(target):
        return 400
    if not target.startswith(b"/") and (method, target) != (b"OPTIONS", b"*"):
        return 400
    if not all(_AUTHORITY.fullmatch(v) for name, v in headers if name == b"host"):
        return 400
    if config.server_names:
        request = cast("Request", _HostOnly(headers))
        if not valid_server_name(config, request):
            return 421
    return RequestHead(method.decode("ascii"), target, headers)


class _HostOnly:
    """As much of Hypercorn's request event as naming a host takes."""

    __slots__ = ("headers",)

    def __init__(self, headers: Headers) -> None:
        self.headers = headers

"""What a connection waits for, and how a request's head is judged."""

from __future__ import annotations

from enum import Enum
from typing import Final, cast

from hypercorn.config import Config
from hypercorn.protocol.events import Request
from hypercorn.utils import valid_server_name

from trio_ai_stream.server.guard.counters import Intervention


class Phase(Enum):
    """What a connection's deadline is for."""

    HANDSHAKE = "handshake"
    HEAD = "head"
    BODY = "body"
    RESPONSE = "response"
    IDLE = "idle"


EXPIRED: Final[dict[Phase, Intervention]] = {
    Phase.HANDSHAKE: "handshake_failed",
    Phase.HEAD: "head_timeout",
    Phase.BODY: "body_timeout",
    Phase.IDLE: "idle_timeout",
}
"""What is counted when a deadline has passed."""


def judge(
    config: Config, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]
) -> int | None:
    """Return the status that refuses a request's head, None if it may pass.

    The forms of a target are RFC 9112 3.2; CONNECT asks for a tunnel, which this server
    does not have (RFC 9110 9.3.6). Methods are case-sensitive (9.1): "head" is not
    HEAD, but ASGI's upper case would make it so, with a body that HTTP then awaits.
    """
    if method == b"CONNECT" or not method.isupper():
        return 501
    if not target.isascii():
        return 400
    if not target.startswith(b"/") and target != b"*" and b"://" not in target:
        return 400
    if config.server_names:
        try:
            request = cast("Request", _HostOnly(headers))
            if not valid_server_name(config, request):
                return 421
        except UnicodeDecodeError:
            return 400
    return None


class _HostOnly:
    """As much of Hypercorn's request event as naming a host takes."""

    __slots__ = ("headers",)

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.headers = headers

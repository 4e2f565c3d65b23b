"""What a connection waits for."""

from __future__ import annotations

from enum import Enum
from typing import Final

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

"""How long each part of a stream may take, in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Reading on after [DONE]: the end of the body is there or a round trip away; a second
# is ample, and a connection that needs longer is cheaper opened anew.
REUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Budgets:
    """One stream's budgets; each is a cancel scope or a timer of its own.

    `first_token_s` and `deadline_s` count from admission, retries included; `idle_s`
    counts while the stream waits for upstream; `heartbeat_s` counts silence towards the
    client, which is filled only while upstream's own lasts no longer than `alive_s`;
    `write_s` bounds the terminal event; `done_grace_s` counts from the last output
    once each choice has its finish reason.
    """

    first_token_s: float
    idle_s: float
    deadline_s: float
    heartbeat_s: float
    alive_s: float
    write_s: float
    done_grace_s: float

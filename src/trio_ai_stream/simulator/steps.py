"""The vocabulary of a schedule: what a connection is told to do, one step at a time.

Pure. A schedule (schedule.py) is an iterator of steps; the connection plays it.
Pauses add up from the moment the request was complete, so a late write does not make
the next one later.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class ResponsePhase(enum.StrEnum):
    """How far a response has got; a record's timestamps are named after them."""

    RECEIVING = "receiving"  # the request's head is in, its body is not
    AWAITING_HEADERS = "awaiting_headers"
    AWAITING_FIRST_TOKEN = "awaiting_first_token"  # noqa: S105  not a password
    STREAMING = "streaming"
    FINISHING = "finishing"  # finish_reason is sent, the body has not ended
    ENDED = "ended"


class Pause(NamedTuple):
    """Wait so many seconds; `math.inf` waits until the client leaves."""

    seconds: float


class SimulatedHead(NamedTuple):
    """Send a response head; without a length the body is chunked or ends by close."""

    status: int
    headers: tuple[tuple[str, str], ...]
    length: int | None = None
    interim: bool = False


class Write(NamedTuple):
    """Send bytes of the body; `phase` is entered as their sending begins.

    The `last` write carries the end of a chunked body, so that a client which leaves
    on its data has had the whole response.
    """

    data: bytes
    events: int = 0
    tokens: int = 0
    phase: ResponsePhase | None = None
    last: bool = False


class End(enum.Enum):
    """How the connection leaves the response; a schedule without one ends as BODY."""

    BODY = "body"  # the body is complete
    FIN = "fin"  # close in mid-body
    RST = "rst"  # reset in mid-body


Step = Pause | SimulatedHead | Write | End

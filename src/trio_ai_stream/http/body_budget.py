"""How many bytes of request bodies one process holds: a bound over all requests."""

from __future__ import annotations

from typing import Final

from trio_ai_stream.http.incoming import Incoming
from trio_ai_stream.wire.problems import Fault, Problem, Refused

SPENT: Final = Problem(
    503,
    "too_many_bodies",
    "the server holds as many bytes of requests as it may; try again later",
    Fault.SERVER,
    retryable=True,
    retry_after=1,
)


class BodyBudget:
    """Counts bodies from their arrival to the end of their requests.

    Bytes count as they arrive: what a head announces and never sends costs nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, incoming: Incoming, size: int) -> None:
        """Count bytes that have arrived.

        :raises Refused: 503; there is no room for them.
        """
        if self.held + size > self.limit:
            raise Refused(SPENT)
        self.held += size
        incoming.body_bytes += size

    def give_back(self, incoming: Incoming) -> None:
        """Count what a request held no longer; idempotent."""
        self.held -= incoming.body_bytes
        incoming.body_bytes = 0

"""How much of upstream's answers one process holds in parts, over all its streams."""

from __future__ import annotations

from typing import Final

from trio_ai_stream.stream.outcome import EndStream, Outcome
from trio_ai_stream.wire.problems import Fault, Problem

# So much each stream may hold uncounted: nearly every event is far smaller.
FREE_BYTES: Final = 64 * 1024

SPENT: Final = Problem(
    503,
    "server_overloaded",
    "this server holds too many large answers at the moment; try again later",
    Fault.SERVER,
    retryable=True,
)


class BufferBudget:
    """The bytes that all streams together may hold beyond `FREE_BYTES` each."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0


class Reservation:
    """One stream's part of the budget."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: BufferBudget) -> None:
        self._budget = budget
        self.size = 0

    def hold(self, size: int) -> None:
        """Hold `size` bytes from now on, instead of what was held.

        :raises EndStream: when the budget has no room for them; less is held then.
        """
        if not self.fits(size):
            raise self.spent()
        size = size if size > FREE_BYTES else 0
        self._budget.held += size - self.size
        self.size = size

    def fits(self, size: int) -> bool:
        """Tell whether the budget has room for `size` bytes instead of what is held."""
        more = size - self.size
        return (
            size <= FREE_BYTES
            or more <= 0
            or self._budget.held + more <= self._budget.limit
        )

    def spent(self) -> EndStream:
        """Return how a stream ends for which there is no room."""
        budget = self._budget
        return EndStream(
            Outcome.UPSTREAM_FAILED,
            problem=SPENT,
            detail=f"UPSTREAM_BUFFER_BYTES: {budget.held} of {budget.limit} held",
        )

    def release(self) -> None:
        """Hold nothing any more; idempotent."""
        self.hold(0)

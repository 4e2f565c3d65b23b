"""Permits: how many streams may live at a time. In memory; nothing here waits.

A stream without a permit is refused at once. Queueing would hold the client's
connection, hide the overload from the load balancer and add a wait to every stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

Scope = Literal["server", "client", "gate"]


@dataclass(frozen=True, slots=True)
class Refused:
    """No permit: the server (503) or this client (429) has as many as it may have.

    `gate`: the shared counters can't be reached and the policy is `closed` (503).
    """

    scope: Scope
    limit: int
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class PermitStatistics:
    """A moment's count of one process; `peak` and `refused` since its start."""

    held: int
    limit: int
    peak: int
    granted: int
    refused: int


class Permit:
    """The right to one live stream, until `release`.

    Also a context manager, for a holder whose stream is one block.
    """

    __slots__ = ("_on_release", "client_id", "request_id")

    def __init__(
        self, client_id: str, request_id: str, on_release: Callable[[Permit], None]
    ) -> None:
        self.client_id = client_id
        self.request_id = request_id
        self._on_release: Callable[[Permit], None] | None = on_release

    @property
    def released(self) -> bool:
        """Whether `release` was called."""
        return self._on_release is None

    def release(self) -> None:
        """Give the permit back; synchronous, and idempotent however often it is called.

        The first call takes effect; so a clean-up path need not know of another's.
        """
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            on_release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "released" if self.released else "held"
        return f"<Permit {self.request_id} of {self.client_id}, {state}>"


class StreamPermits:
    """`total` permits, of which one client holds `per_client` at most (None: any)."""

    def __init__(
        self, total: int, per_client: int | None = None, *, retry_after_s: float = 1.0
    ) -> None:
        if total < 1 or (per_client is not None and per_client < 1):
            raise ValueError(f"expected limits of 1 or more, got {total}, {per_client}")
        self.total = total
        self.per_client = per_client
        self._retry_after_s = retry_after_s
        self._held: Counter[str] = Counter()
        self._count = self._peak = self._granted = self._refused = 0

    def acquire_nowait(
        self, client_id: str, request_id: str, *, share: int | None = None
    ) -> Permit | Refused:
        """Return a permit, or why there is none; never waits.

        `share` stands for the total while several processes must keep to it blindly.
        """
        total = self.total if share is None else share
        if self._count >= total:
            return self.refuse("server", total)
        if self.per_client is not None and self._held[client_id] >= self.per_client:
            return self.refuse("client", self.per_client)
        return self.acquire_unchecked(client_id, request_id)

    def acquire_unchecked(self, client_id: str, request_id: str) -> Permit:
        """Return a permit that somebody else has already granted; only count it."""
        self._held[client_id] += 1
        self._count += 1
        self._granted += 1
        self._peak = max(self._peak, self._count)
        return Permit(client_id, request_id, self._release)

    def set_limits(self, total: int, per_client: int | None) -> None:
        """Let so many be held from now on; more that are held already stay granted."""
        self.total = total
        self.per_client = per_client

    def statistics(self) -> PermitStatistics:
        """Return the counts of this moment."""
        return PermitStatistics(
            held=self._count,
            limit=self.total,
            peak=self._peak,
            granted=self._granted,
            refused=self._refused,
        )

    def refuse(self, scope: Scope, limit: int) -> Refused:
        """Count a refusal that was decided here or elsewhere, and return it."""
        self._refused += 1
        return Refused(scope, limit, self._retry_after_s)

    def _release(self, permit: Permit) -> None:
        self._count -= 1
        self._held[permit.client_id] -= 1
        if not self._held[permit.client_id]:
            del self._held[permit.client_id]

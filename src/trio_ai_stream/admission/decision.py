"""What the rate limit said about one request, and the header fields that tell it.

Two generations of fields are sent, because clients read either:
`RateLimit-Limit`, `-Remaining`, `-Reset` (draft-ietf-httpapi-ratelimit-headers-05 and
what most APIs send) and `RateLimit-Policy`, `RateLimit` (draft -10, structured fields:
q quota, w window in seconds, r remaining, t seconds until it is restored).
`Retry-After` (RFC 9110, section 10.2.3) comes with a refusal only, and the reset then
names the same instant, so that the fields never contradict each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

POLICY = "requests"
"""The policy's name in the structured fields."""
FIELDS = (
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "RateLimit-Policy",
    "RateLimit",
    "Retry-After",
)
"""The names of all fields; a page of another origin must be let read them."""


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests a second and client, of which `burst` may come at once."""

    rate: float
    burst: int

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1e6:
            raise ValueError(f"expected a rate above 0 and up to 1e6, got {self.rate}")
        if self.burst < 1:
            raise ValueError(f"expected a burst of at least 1, got {self.burst}")

    @classmethod
    def per_second(cls, rate: float) -> Quota:
        """Return RATE_LIMIT's quota: the burst is one second's worth, at least one."""
        return cls(rate=rate, burst=max(1, math.floor(rate)))

    @property
    def interval_s(self) -> float:
        """Seconds in which one request's worth comes back."""
        return 1.0 / self.rate

    @property
    def window_s(self) -> float:
        """Seconds in which a whole burst comes back."""
        return self.burst / self.rate


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether one request may go on, and what the client has left.

    `remaining` requests may follow at once; the whole burst is back in `reset_s`;
    `retry_after_s` is 0 for an admitted request, else the time until one is admitted.
    `unavailable` says that it was refused for want of an answer, not for its rate: the
    shared counters can't be reached and RATE_LIMIT_FALLBACK is `closed` (503, not 429).
    """

    allowed: bool
    quota: Quota
    remaining: int
    reset_s: float
    retry_after_s: float
    unavailable: bool = False

    def headers(self) -> list[tuple[str, str]]:
        """Return the response's fields, `Retry-After` among them if it is refused."""
        reset = whole_seconds(self.reset_s if self.allowed else self.retry_after_s)
        window = whole_seconds(self.quota.window_s)
        values = [
            str(self.quota.burst),
            str(self.remaining),
            str(reset),
            f'"{POLICY}";q={self.quota.burst};w={window}',
            f'"{POLICY}";r={self.remaining};t={reset}',
        ]
        if not self.allowed:
            values.append(str(reset))
        return list(zip(FIELDS, values, strict=False))


def whole_seconds(seconds: float) -> int:
    """Round up to whole seconds, at least 1: sooner would only be refused again."""
    # A rounding error above a whole number must not cost the client another second.
    return max(1, math.ceil(seconds - 1e-6))

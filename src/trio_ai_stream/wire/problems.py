"""Errors that a client is told: what went wrong, whose fault, and whether to retry.

A `Problem` is data. How it looks on the wire (the JSON of the original Go server,
an SSE `error` event, OpenAI's shape) is the encoder's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """Who has to change something for the next try to succeed."""

    CALLER = "caller"
    UPSTREAM = "upstream"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error in public words: no secret, and no text but ours or a caller's 4xx.

    `status` is the HTTP status, `retry_after` is in seconds. `upstream_status` is what
    upstream itself said, where the problem is one of upstream's. `resend`: upstream has
    not worked on the request, so we may send it again. `spent`: we have, as often as we
    may, so that a client's own retries would only multiply ours.
    """

    status: int
    error_type: str
    message: str
    fault: Fault = Fault.CALLER
    retryable: bool = False
    retry_after: float | None = None
    field: str | None = None
    upstream_status: int | None = None
    resend: bool = False
    spent: bool = False

    @property
    def retry_after_header(self) -> str | None:
        """`Retry-After` in whole seconds, rounded up (RFC 9110 section 10.2.3)."""
        if self.retry_after is None:
            return None
        return str(max(1, math.ceil(self.retry_after)))


class Refused(Exception):  # noqa: N818  a refusal is an answer, not a failure of ours
    """The request is answered with this problem instead of a stream."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def invalid(field: str, message: str, *, status: int = 400) -> Refused:
    """Return the refusal of a request whose `field` is bad."""
    error_type = "payload_too_large" if status == 413 else "invalid_request"
    return Refused(Problem(status, error_type, f"{field}: {message}", field=field))


SHUTTING_DOWN = Problem(
    503,
    "shutting_down",
    "the server is shutting down; send the request again",
    fault=Fault.SERVER,
    retryable=True,
    retry_after=1,
)
EXHAUSTED = Problem(
    503,
    "overloaded",
    "the server has no file descriptor left; try again later",
    fault=Fault.SERVER,
    retryable=True,
    retry_after=1,
)
INTERNAL = Problem(
    500, "internal_error", "the server made a mistake; it has been logged", Fault.SERVER
)

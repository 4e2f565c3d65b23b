"""How a stream ended, and what is recorded of it, once."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec

from trio_ai_stream.wire.bill import Bill
from trio_ai_stream.wire.problems import Fault

_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Outcome(StrEnum):
    """Why a stream ended; a closed set, recorded once for each stream."""

    COMPLETED = "completed"
    CLIENT_DISCONNECTED = "client_disconnected"
    CLIENT_STALLED = "client_stalled"
    CANCELLED = "cancelled"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"  # noqa: S105  a name, no secret
    STREAM_IDLE_TIMEOUT = "stream_idle_timeout"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    UPSTREAM_REJECTED = "upstream_rejected"
    UPSTREAM_FAILED = "upstream_failed"
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal_error"
    ABANDONED = "abandoned"


def plain_word(text: str | None) -> str | None:
    """Return upstream's word if it is one: its free text does not belong into a log."""
    return text if text is not None and _WORD.fullmatch(text) else None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One ended stream. Times are in seconds; there is neither prompt nor content.

    `fault` says whose doing the end was, None of a whole answer. `cancel_latency_s` is
    from the cause to the upstream connection's close, where the stream held one.
    `ending_s` is from the cause until nothing of the stream was left.
    `told` says whether the terminal event, and all before it, left this process.
    `user` is the caller's own user, as its request names it; for the ledger alone.
    Of a stream with a grace: `resumes` counts its client's returns, `detached_s` is how
    long it had no client before its end.
    """

    request_id: str
    endpoint: str
    owner: str
    model: str
    streamed: bool
    outcome: Outcome
    fault: Fault | None
    detail: str
    duration_s: float
    first_content_s: float | None
    cancel_latency_s: float | None
    attempts: int
    events: int
    blocks: int
    bytes_out: int
    told: bool
    finish_reason: str | None
    generation_id: str | None
    bill: Bill
    user: str | None
    ending_s: float
    resumes: int
    detached_s: float

"""An ended stream's record, as the stream's room would make it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ended:
    """What telemetry reads of a stream's record."""

    outcome: str = "completed"
    fault: str | None = None
    duration_s: float = 1.0
    first_content_s: float | None = None
    cancel_latency_s: float | None = None
    attempts: int = 1
    events: int = 0
    blocks: int = 0
    bytes_out: int = 0
    finish_reason: str | None = None
    generation_id: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    request_id: str = "r-1"
    endpoint: str = "/chat"
    model: str = "maker/model"
    streamed: bool = True

"""The one log record of each stream, when it has ended."""

from __future__ import annotations

from typing import Any, Literal

from loguru import logger

from trio_ai_stream.telemetry.log_rendering import shown_client
from trio_ai_stream.wire.record import Record


def log_stream(clients: Literal["full", "network", "none"], record: Record) -> None:
    """Write the one `stream ended` record of a stream, its client named as told."""
    fields: dict[str, Any] = {
        "event": "stream_ended",
        "outcome": record.outcome.value,
        "fault": record.fault,
        "detail": record.detail or None,
        "client": shown_client(record.owner, clients),
        "endpoint": record.endpoint,
        "model": record.model,
        "first_token_ms": _ms(record.first_content_s),
        "cancel_latency_ms": _ms(record.cancel_latency_s),
        "duration_ms": _ms(record.duration_s),
        "events": record.events,
        "blocks": record.blocks,
        "bytes": record.bytes_out,
        "attempts": record.attempts,
        "told": record.told,
        "finish_reason": record.finish_reason,
        "generation_id": record.generation_id,
        **record.bill.fields(),
    }
    if record.resumes or record.detached_s:
        fields |= {"resumes": record.resumes, "detached_ms": _ms(record.detached_s)}
    logger.bind(request_id=record.request_id).info("stream ended", **fields)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)

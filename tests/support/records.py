"""A stream's record with usual values."""

from __future__ import annotations

from typing import Any

import msgspec

from trio_ai_stream.wire.record import Bill, Outcome, Record

_RECORD = Record(
    request_id="r-1",
    endpoint="/chat",
    owner="ip:127.0.0.1",
    model="maker/model",
    streamed=True,
    outcome=Outcome.COMPLETED,
    fault=None,
    detail="",
    duration_s=1.0,
    first_content_s=None,
    cancel_latency_s=None,
    attempts=1,
    events=0,
    blocks=0,
    bytes_out=0,
    told=True,
    finish_reason=None,
    generation_id=None,
    bill=Bill(),
    user=None,
    ending_s=0.0,
    resumes=0,
    detached_s=0.0,
)


def ended(**fields: Any) -> Record:
    """Return the record of an ended stream, with these fields changed."""
    return msgspec.structs.replace(_RECORD, **fields)

"""How long upstream asks to wait, wherever and in whatever shape it says so; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

# A longer time, `1e999` for one, is a mistake; it could not be written out.
MAX_SECONDS: Final = 1e7
_NUMBER: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_IN_BODY: Final = ("retry_after", "retry_after_seconds")
# A number at least this large counts milliseconds since 1970, as OpenRouter's does.
_EPOCH_MS: Final = 1e11


def wait_told(
    error: Mapping[str, Any], headers: Mapping[str, str], *, now: float
) -> float | None:
    """Return how many seconds to wait; None if upstream does not say.

    Infinity if it says so in a way that can't be read: whoever wants to send again does
    not know when. `headers` have lower-case names; `now` is in seconds since 1970.
    """
    metadata = error.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    provided = metadata.get("headers")
    provided = provided if isinstance(provided, dict) else {}
    provided = {str(name).lower(): value for name, value in provided.items()}
    availability = error.get("availability")
    places = (availability, metadata, error)
    said = [
        place.get(name)
        for place in places
        if isinstance(place, Mapping)
        for name in _IN_BODY
    ]
    said += [headers.get("retry-after"), provided.get("retry-after")]
    for value in said:
        if value is not None:
            return _seconds(value, now, headers.get("date", ""))
    for fields in (provided, headers):
        if (value := fields.get("x-ratelimit-reset")) is not None:
            return _until(value, now)
    return None


def _seconds(value: object, now: float, sent_at: str) -> float:
    """Read seconds, as a number or as digits, or a date (RFC 9110 section 10.2.3).

    A date that is past here, but not when the answer was sent, is one of another clock.
    """
    number = _number(value)
    if number is None and isinstance(value, str) and (at := _date(value)) is not None:
        sent = _date(sent_at)
        number = max(0.0, at - now if at > now or sent is None else at - sent)
    return number if number is not None and 0 <= number < MAX_SECONDS else math.inf


def _until(value: object, now: float) -> float:
    """Read a time since 1970, in milliseconds or in seconds."""
    number = _number(value)
    if number is None:
        return math.inf
    wait = (number / 1000 if number >= _EPOCH_MS else number) - now
    return max(0.0, wait) if wait < MAX_SECONDS else math.inf


def _number(value: object) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < MAX_SECONDS * 1e9 else None
    return None


def _date(value: str) -> float | None:
    try:
        date = parsedate_to_datetime(value)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return date.timestamp()
    except (ValueError, OverflowError):
        return None

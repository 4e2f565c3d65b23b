"""Secrets that no log record may contain: the last defence, not the first.

Code never logs a secret on purpose. This module catches the accident: a foreign
exception whose text quotes a URL with a password, or a header in a library's record.
Each registered secret is replaced in the finished text of every record, tracebacks
included, in each spelling that rendering can give it.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from trio_ai_stream.telemetry.records import as_json, escape

MASK = "[redacted]"
MINIMUM_LENGTH = 6
"""Shorter values are not replaced: they would tear holes into ordinary words."""

_spellings: set[str] = set()
_pattern: re.Pattern[str] | None = None


def register_secret(value: str) -> None:
    """Have `value` replaced in every later log record; idempotent.

    Values under `MINIMUM_LENGTH` characters are ignored.
    """
    global _pattern
    if len(value) < MINIMUM_LENGTH:
        return
    _spellings.update(
        {
            value,
            escape(value),
            json.dumps(value)[1:-1],
            as_json(value)[1:-1],
            repr(value)[1:-1],
            quote(value, safe=""),
        }
    )
    # The longest first, so that a secret which contains another is masked whole.
    ordered = sorted(_spellings, key=len, reverse=True)
    _pattern = re.compile("|".join(re.escape(spelling) for spelling in ordered))


def forget_secrets() -> None:
    """Forget all registered secrets; for a process that changes its settings."""
    global _pattern
    _spellings.clear()
    _pattern = None


def redact(text: str) -> str:
    """Return `text` with every registered secret replaced by `MASK`."""
    return _pattern.sub(MASK, text) if _pattern is not None else text

"""Values that nobody expects, in the place of each that is expected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

MARK: Final = "a byte that is not UTF-8"
ODD: Final[list[Any]] = [
    *(None, True, -1, 10**400, 1e308, float("nan"), 502, "502", "error"),
    *("", "a", "\ud83d", "\0", MARK, [], {}, [[]], [None], {"type": {}}, ["a", {}]),
]


def altered(value: Any) -> Iterator[Any]:
    """Yield `value` with one part of it replaced by something odd, or left out."""
    yield from ODD
    if isinstance(value, dict):
        for name, part in value.items():
            yield {other: value[other] for other in value if other != name}
            yield from ({**value, name: one} for one in altered(part))
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from ([*value[:at], one, *value[at + 1 :]] for one in altered(part))


def encoded(value: Any) -> bytes:
    """Return JSON as upstream might send it."""
    return json.dumps(value).encode().replace(MARK.encode(), b"\xff")

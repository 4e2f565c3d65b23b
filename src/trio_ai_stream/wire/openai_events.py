"""Server-sent events as OpenAI's clients read them: upstream's chunks, unchanged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trio_ai_stream.wire.events import Item, Raw

DONE: Final = b"data: [DONE]\n\n"


def frames(items: Iterable[Item]) -> tuple[bytes, int]:
    """Return the frames of all chunks in `items`, joined, and their number.

    What the items say besides was for the relay; a comment is dropped.
    """
    payloads = [item.payload for item in items if type(item) is Raw]
    if not payloads:
        return b"", 0
    joined = b"\n\ndata: ".join(payloads)
    if any(b"\n" in payload for payload in payloads):
        # JSON may be laid out over several lines, and then each is a field of its own.
        joined = b"\n\ndata: ".join(p.replace(b"\n", b"\ndata: ") for p in payloads)
    return b"data: " + joined + b"\n\n", len(payloads)

"""Encoded server-sent events and their ids; pure.

An `id` line stands before the other lines of its event. It is how a browser's
`EventSource` says which event it had last (WHATWG HTML, section 9.2.6).
"""

from __future__ import annotations

import re
from typing import Final

_END: Final = b"\n\n"
_OWN_ID: Final = re.compile(rb"^id(?::[^\n]*)?(?:\n|\Z)", re.MULTILINE)


def numbered(data: bytes, first: int) -> list[bytes]:
    """Return each whole event of `data` with its id: `first`, and so on.

    An id that an event has from upstream is left out: only ours finds its place again.
    """
    frames = data.split(_END)
    assert not frames.pop(), "expected whole events"
    return [
        b"id: %d\n%b\n\n"
        % (number, _OWN_ID.sub(b"", frame) if b"id" in frame else frame)
        for number, frame in enumerate(frames, first)
    ]


def is_comment(data: bytes) -> bool:
    """Whether there is nothing but a comment, which is no event and gets no id."""
    return data.startswith(b":")

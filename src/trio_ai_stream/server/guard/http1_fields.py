"""The fields of an HTTP/1.1 response as lines: what h11 must judge, what is text.

h11 checks every field of a response several times over; it needs to see only those that
steer framing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import h11
from hypercorn.config import Config

Fields = list[tuple[bytes, bytes]]

# The fields that h11 reads in a response; it checks every field several times over.
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_REASONS: Final[Mapping[int, bytes]] = {
    status.value: status.phrase.encode("ascii") for status in HTTPStatus
}
_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\x00\r\n]*\r\n")


@lru_cache(maxsize=2)
def own_fields(config: Config, _second: int) -> Fields:
    """Return what the server adds to a response in this second: the date, for one."""
    return config.response_headers("h11")


def reason(status: int) -> bytes:
    """Return the phrase of a status (RFC 9110 15), empty if it has none."""
    return _REASONS.get(status, b"")


@lru_cache(maxsize=512)  # most fields are the same in every response
def field_line(name: bytes, value: bytes) -> bytes | None:
    """Return a field as it goes on the wire; None: it steers framing, which is h11's.

    :raises h11.LocalProtocolError: it is not one line.
    """
    if name.lower() in _FRAMING:
        return None
    line = b"%b: %b\r\n" % (name, value)
    if not _LINE.fullmatch(line):
        raise h11.LocalProtocolError("expected a header field in one line")
    return line

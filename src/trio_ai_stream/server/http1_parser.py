"""HTTP/1.1 requests out of bytes; no await, no clock.

The grammar is RFC 9112's. Wherever it leaves a choice that a proxy in front may have
made otherwise, so that it would see another request behind this one, the request is
refused: two framings, two lengths, folded fields, a transfer coding in HTTP/1.0,
anything but a line in a chunk's extension. A line of a head may end with a bare LF
(section 2.2), one of a chunked body may not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

# A method, or the name of a field (RFC 9110 5.6.2).
TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(
    rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])"
)
# Without its line's end; the blanks around the value are taken off afterwards, since a
# pattern for them would take quadratic time for a long row of blanks.
_FIELD: Final = re.compile(rb"(" + TOKEN + rb"):([^\0\n\v\f\r]*)")
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_LINE_END: Final = re.compile(rb"\r?\n")
_EMPTY_LINES: Final = re.compile(rb"(?:\r?\n)*+")
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[^\0\r\n]*+)?[ \t]*\r\n")
# What may still become one.
_PART_OF_LINE: Final = re.compile(rb"[^\0\r\n]*+\r?\Z")
_LAST: Final = re.compile(rb"\r?\n|\r?\Z")
_VERSIONS: Final = {b"1.0": "1.0", b"1.1": "1.1"}

Headers = list[tuple[bytes, bytes]]


class BadRequestError(Exception):
    """The bytes are no request that may be served; `status` is the answer to it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class EndOfRequest(Enum):
    """What follows the last part of a request's body, or the head if it has none."""

    HERE = "end of request"


class Request(NamedTuple):
    """A head, names in lower case, and what it says to the connection.

    `length` is that of the body, None if it comes in chunks. `persists`: the client
    takes another response on this connection. `expects_continue`: it waits for a 100
    before it sends the body (RFC 9110 10.1.1).
    """

    method: bytes
    target: bytes
    version: str
    headers: Headers
    length: int | None
    persists: bool
    expects_continue: bool


class _Next(Enum):
    """What the next bytes are."""

    HEAD = "head"
    BODY = "body"
    CHUNK_LINE = "chunk line"
    CHUNK = "chunk"
    CHUNK_END = "end of chunk"
    TRAILERS = "trailers"
    END = "end of request"
    NOTHING = "nothing before the next request"


_CONTENT: Final = frozenset({_Next.BODY, _Next.CHUNK})
_FRAMING: Final = frozenset({_Next.CHUNK_LINE, _Next.CHUNK_END, _Next.TRAILERS})


@dataclass(slots=True, eq=False, repr=False)  # `repr` would show what was sent
class RequestParser:
    """The requests of one connection, one after the other.

    Bytes go in by `feed`; `next_event` returns what they are. After the end of a
    request nothing is read before `start_next`: what a client has sent ahead waits.
    """

    head_bytes: int  # bounds a head, a chunk's line and all trailers
    _data: bytes = b""
    _at: int = 0  # where what is not yet read begins
    _searched: int = 0  # the end of a head is not before
    _next: _Next = _Next.HEAD
    _left: int = 0  # bytes of the body, or of the chunk

    def __str__(self) -> str:
        """What it waits for."""
        return self._next.value

    @property
    def whole(self) -> bool:
        """Whether the request has been read to its end."""
        return self._next is _Next.NOTHING

    @property
    def ahead(self) -> bool:
        """Whether there are bytes that have not been read."""
        return self._at < len(self._data)

    def start_next(self) -> None:
        """Read on with the next request."""
        assert self._next is _Next.NOTHING
        self._next = _Next.HEAD

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._data = self._data[self._at :] + data if self.ahead else data
        self._searched = max(0, self._searched - self._at)
        self._at = 0

    def next_event(self) -> Request | bytes | EndOfRequest | None:
        """Return the head, a part of the body, or the end; None: more is needed.

        :raises BadRequestError: this is no request; the parser is of no use afterwards.
        """
        while self._next in _FRAMING:
            if not self._framing():
                return None
        if self._next is _Next.HEAD:
            return self._head()
        if self._next in _CONTENT:
            return self._part()
        if self._next is _Next.END:
            self._next = _Next.NOTHING
            # The response may take hours; the request is not held meanwhile.
            self._data, self._at = self._data[self._at :], 0
            return EndOfRequest.HERE
        return None

    def _head(self) -> Request | None:
        data = self._data
        if data[self._at : self._at + 1] in {b"\r", b"\n"}:
            # Empty lines before a request (RFC 9112 2.2).
            found = _EMPTY_LINES.match(data, self._at)
            assert found is not None
            self._at = found.end()
            if data[self._at :] == b"\r":
                return None
        start = self._at
        if start == len(data):
            return None
        end = _HEAD_END.search(data, max(start, self._searched))
        if (len(data) if end is None else end.start()) - start > self.head_bytes:
            raise BadRequestError(431)
        if end is None:
            if data[start] < ord("!"):  # no method begins so
                raise BadRequestError(400)
            self._searched = max(start, len(data) - 2)
            return None
        request = _read_head(data[start : end.start()].removesuffix(b"\r"))
        self._at = end.end()
        self._searched = 0
        self._left = request.length or 0
        self._next = _Next.BODY if self._left else _Next.END
        if request.length is None:
            self._next = _Next.CHUNK_LINE
        return request

    def _part(self) -> bytes | None:
        """Return what has come of the body, or of this chunk of it."""
        part = self._data[self._at : self._at + self._left]
        if not part:
            return None
        self._at += len(part)
        self._left -= len(part)
        if not self._left:
            is_chunk = self._next is _Next.CHUNK
            self._next = _Next.CHUNK_END if is_chunk else _Next.END
        return part

    def _framing(self) -> bool:
        """Read what stands between the parts of a chunked body (RFC 9112 7.1)."""
        data, start = self._data, self._at
        if self._next is _Next.CHUNK_END:
            if len(data) - start < 2:
                if data[start:] not in {b"", b"\r"}:
                    raise BadRequestError(400)
                return False
            if not data.startswith(b"\r\n", start):
                raise BadRequestError(400)
            self._at += 2
            self._next = _Next.CHUNK_LINE
            return True
        if self._next is _Next.CHUNK_LINE:
            return self._chunk_line()
        return self._trailers()

    def _chunk_line(self) -> bool:
        found = _CHUNK_LINE.match(self._data, self._at)
        if found is None:
            if not _PART_OF_LINE.match(self._data, self._at):
                raise BadRequestError(400)
            if len(self._data) - self._at > self.head_bytes:
                raise BadRequestError(431)
            return False
        if found.end() - self._at > self.head_bytes:
            raise BadRequestError(431)
        self._at = found.end()
        self._left = int(found[1], 16)
        self._next = _Next.CHUNK if self._left else _Next.TRAILERS
        return True

    def _trailers(self) -> bool:
        """Read the fields behind the last chunk; nobody here wants them."""
        data, start = self._data, self._at
        if last := _LAST.match(data, start):
            if not last[0].endswith(b"\n"):
                return False  # or an empty line that is not whole
            self._at = last.end()
        else:
            end = _HEAD_END.search(data, max(start, self._searched))
            if (len(data) if end is None else end.start()) - start > self.head_bytes:
                raise BadRequestError(431)
            if end is None:
                self._searched = max(start, len(data) - 2)
                return False
            _read_fields(_LINE_END.split(data[start : end.start()].removesuffix(b"\r")))
            self._at = end.end()
            self._searched = 0
        self._next = _Next.END
        return True


def _read_head(head: bytes) -> Request:
    """Return a head that is one request and nothing else.

    :raises BadRequestError: it is not.
    """
    first, *lines = _LINE_END.split(head)
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise BadRequestError(400)
    method, target, version = found.groups()
    if version not in _VERSIONS:
        raise BadRequestError(505)
    headers = _read_fields(lines)
    lengths, codings, hosts = [], [], 0
    persists, expects_continue = version == b"1.1", False
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.lower())
        elif name == b"connection":
            persists = persists and b"close" not in list_members(value)
        elif name == b"expect":
            expects_continue = version == b"1.1" and b"100-continue" in list_members(
                value
            )
    # Section 3.2: exactly one in HTTP/1.1, which has brought it.
    if hosts > 1 or (not hosts and version == b"1.1"):
        raise BadRequestError(400)
    return Request(
        method=method,
        target=target,
        version=_VERSIONS[version],
        headers=headers,
        length=_body_length(lengths, codings, version),
        persists=persists,
        expects_continue=expects_continue,
    )


def _body_length(
    lengths: list[bytes], codings: list[bytes], version: bytes
) -> int | None:
    """Return the length of the body, None for chunks (RFC 9112 6.1 to 6.3)."""
    if codings:
        if codings != [b"chunked"]:
            raise BadRequestError(501)
        if lengths or version == b"1.0":
            raise BadRequestError(400)
        return None
    return announced_length(lengths) or 0


def announced_length(lengths: list[bytes]) -> int | None:
    """Return what the Content-Length fields of a request say; None without one.

    :raises BadRequestError: it is no length, or there are several.
    """
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadRequestError(400)
    return int(lengths[0])


def _read_fields(lines: list[bytes]) -> Headers:
    fields = []
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise BadRequestError(400)
        name, value = found.groups()
        fields.append((name.lower(), value.strip(b" \t")))
    return fields


def list_members(value: bytes) -> list[bytes]:
    """Return the members of a list of words, in lower case."""
    return [word.strip() for word in value.lower().split(b",")]

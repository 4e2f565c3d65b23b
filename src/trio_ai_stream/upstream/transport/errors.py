"""Where every failure of a connection becomes an exception of httpx: one table.

Two things decide the class: what the connection was doing (the phase), and what went
wrong. `reraise` looks the pair up; what is not in the table is a bug and is passed
on as it is. `Cancelled` is never looked up: it passes through untouched.
"""

from __future__ import annotations

import enum
from typing import NoReturn

import httpx
import trio


class Phase(enum.Enum):
    """What a connection was doing when it failed.

    `CONNECT` is also what counts if the server has certainly read nothing of a request.
    """

    CONNECT = "connecting"
    WRITE = "sending the request"
    READ = "reading the response"


class InvalidResponseError(Exception):
    """Upstream sent something that is no HTTP/1.1 response, or is beyond a limit."""


class UnexpectedEndError(InvalidResponseError):
    """Upstream closed the connection before the response was whole."""


class InvalidRequestError(Exception):
    """The request we were asked to send cannot be written as HTTP/1.1."""


_BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""How a stream fails: the kernel's errors, TLS errors (an OSError too), Trio's own."""

_TABLE: dict[Phase, tuple[tuple[type[Exception], type[httpx.TransportError]], ...]] = {
    Phase.CONNECT: (
        (trio.TooSlowError, httpx.ConnectTimeout),
        *((kind, httpx.ConnectError) for kind in _BROKEN),
        (UnicodeError, httpx.ConnectError),  # a host name that IDNA refuses
        (UnexpectedEndError, httpx.ConnectError),
    ),
    Phase.WRITE: (
        (trio.TooSlowError, httpx.WriteTimeout),
        (InvalidRequestError, httpx.LocalProtocolError),
        (UnexpectedEndError, httpx.WriteError),  # closed before it had our request
        (InvalidResponseError, httpx.RemoteProtocolError),
        *((kind, httpx.WriteError) for kind in _BROKEN),
    ),
    Phase.READ: (
        (trio.TooSlowError, httpx.ReadTimeout),
        (InvalidResponseError, httpx.RemoteProtocolError),
        *((kind, httpx.ReadError) for kind in _BROKEN),
    ),
}


def reraise(exc: Exception, phase: Phase) -> NoReturn:
    """Raise httpx's exception for a failure in this phase; a bug as it is.

    The text says what happened in our words; it holds no header and no body.
    """
    for kind, outcome in _TABLE[phase]:
        if isinstance(exc, kind):
            raise outcome(f"{phase.value}: {str(exc) or type(exc).__name__}") from exc
    raise exc

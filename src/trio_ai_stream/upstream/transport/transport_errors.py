"""Why a connection failed: as an exception of httpx, and in words for the log.

`reraise` gives a failure the class that httpx's users expect. `cause_of` and
`describe` tell who runs the program what lies behind it: a library says it in many ways
(an errno, an OpenSSL reason, a class), and here each becomes one of a few causes, with
advice. Clients of the gateway are not told. `Cancelled` is never looked at.
"""

from __future__ import annotations

import enum
import errno
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

import httpx
import trio

from trio_ai_stream.upstream.transport.circuit import CircuitOpenError


class ConnectionPhase(enum.Enum):
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


class ProxyRefusedError(OSError):
    """The proxy opened no connection to upstream."""


class InvalidRequestError(httpx.LocalProtocolError):
    """The request we were asked to send cannot be written as HTTP/1.1."""

    def __init__(self, why: str) -> None:
        super().__init__(f"cannot send the request: {why}")


_BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""How a stream fails: the kernel's errors, TLS errors (an OSError too), Trio's own."""

_TABLE: dict[
    ConnectionPhase, tuple[tuple[type[Exception], type[httpx.TransportError]], ...]
] = {
    ConnectionPhase.CONNECT: (
        (trio.TooSlowError, httpx.ConnectTimeout),
        *((kind, httpx.ConnectError) for kind in _BROKEN),
        (UnicodeError, httpx.ConnectError),  # a host name that IDNA refuses
        (UnexpectedEndError, httpx.ConnectError),
    ),
    ConnectionPhase.WRITE: (
        (trio.TooSlowError, httpx.WriteTimeout),
        (UnexpectedEndError, httpx.WriteError),  # closed before it had our request
        (InvalidResponseError, httpx.RemoteProtocolError),
        *((kind, httpx.WriteError) for kind in _BROKEN),
    ),
    ConnectionPhase.READ: (
        (trio.TooSlowError, httpx.ReadTimeout),
        (InvalidResponseError, httpx.RemoteProtocolError),
        *((kind, httpx.ReadError) for kind in _BROKEN),
    ),
}


def reraise(exc: Exception, phase: ConnectionPhase) -> NoReturn:
    """Raise httpx's exception for a failure in this phase; another one as it is.

    The text says what happened in our words; it holds no header and no body.
    """
    for kind, outcome in _TABLE[phase]:
        if isinstance(exc, kind):
            raise outcome(f"{phase.value}: {str(exc) or type(exc).__name__}") from exc
    raise exc


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause: a word, and what to do about it.

    `heals`: it may pass by itself, so that another try can help. `ours`: it lies on
    this machine, not with the server that was to be reached.
    """

    word: str
    advice: str = ""
    heals: bool = True
    ours: bool = False


NAME: Final = Cause("name", "check the host's name, and this machine's name servers")
REFUSED: Final = Cause("refused", "is it running, and are host and port right?")
UNREACHABLE: Final = Cause("unreachable", "no route to it: check network and firewall")
TIMEOUT: Final = Cause("timeout", "no answer in time: check host, port and firewall")
RESET: Final = Cause("reset", "the other side closed the connection")
UNTRUSTED: Final = Cause(
    "certificate untrusted",
    "no trusted authority signed it: check the URL, a proxy in between, SSL_CERT_FILE",
    heals=False,
)
EXPIRED: Final = Cause(
    "certificate expired",
    "not valid at this time: renew it, and check this machine's clock",
    heals=False,
)
WRONG_NAME: Final = Cause(
    "certificate of another name", "check the host's name in the URL", heals=False
)
PLAINTEXT: Final = Cause(
    "no TLS", "the port speaks plain HTTP: check port and https://", heals=False
)
TLS: Final = Cause("TLS", "the handshake failed", heals=False)
RESOURCES: Final = Cause(
    "out of descriptors",
    "this process has no file descriptor or local port left: raise `ulimit -n`",
    ours=True,
)
CIRCUIT: Final = Cause("circuit open", "it is tried again from time to time")
PROXY: Final = Cause("proxy", "the proxy refused: check the proxy variables")
OTHER: Final = Cause("other")

_ERRNOS: Final = {
    errno.ECONNREFUSED: REFUSED,
    errno.EHOSTUNREACH: UNREACHABLE,
    errno.ENETUNREACH: UNREACHABLE,
    errno.ETIMEDOUT: TIMEOUT,
    errno.ECONNRESET: RESET,
    errno.EPIPE: RESET,
    errno.EMFILE: RESOURCES,
    errno.ENFILE: RESOURCES,
    errno.ENOBUFS: RESOURCES,
    errno.ENOMEM: RESOURCES,
    errno.EADDRNOTAVAIL: RESOURCES,
}
# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_NOT_VALID_NOW: Final = frozenset({9, 10})
_OTHER_NAME: Final = frozenset({62, 63, 64})
_NO_TLS: Final = frozenset(
    {
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)


def cause_of(exc: BaseException) -> Cause:
    """Return the cause of an exception, as far as it or what it came from tells."""
    found = [cause for one in _chain(exc) if (cause := _cause(one)) is not None]
    return found[-1] if found else OTHER


def describe(exc: BaseException) -> str:
    """Return the cause in one line, with its advice: for the log, not for clients."""
    cause = cause_of(exc)
    said = " ".join(str(exc).split())[:200] or type(exc).__name__
    return f"{cause.word}: {said}; {cause.advice}" if cause.advice else said


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came from, the outermost first."""
    seen: set[int] = set()
    at: BaseException | None = exc
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def _cause(exc: BaseException) -> Cause | None:
    match exc:
        case CircuitOpenError():
            return CIRCUIT
        case ssl.SSLCertVerificationError(verify_code=code):
            if code in _OTHER_NAME:
                return WRONG_NAME
            return EXPIRED if code in _NOT_VALID_NOW else UNTRUSTED
        case ssl.SSLError():
            # One that OpenSSL did not raise has none.
            reason = getattr(exc, "reason", None)
            return PLAINTEXT if reason in _NO_TLS else TLS
        case socket.gaierror():
            # The C library says the same if it finds no descriptor for its question.
            return NAME if _descriptor_left() else RESOURCES
        case UnicodeError():
            return NAME
        case ProxyRefusedError():
            return PROXY
        case trio.TooSlowError() | httpx.TimeoutException():
            return TIMEOUT
        case OSError(errno=number) if number in _ERRNOS:
            return _ERRNOS[number]
        case _:
            return None


def _descriptor_left() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True

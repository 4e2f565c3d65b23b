"""Why Valkey or Redis can't be used: a word for the metrics, a sentence for the log.

coredis wraps what goes wrong below it; the reason is somewhere in its chain of causes.
No sentence holds a password: hosts and ports only, and what the server itself said.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

import trio
from coredis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    ProtocolError,
    ReadOnlyError,
    ResponseError,
    UnknownCommandError,
)

from trio_ai_stream.admission.gate import ClusterRefusedError

Cause = Literal[
    "timeout",
    "unavailable",
    "full",
    "dns",
    "refused",
    "tls",
    "password",
    "acl",
    "cluster",
    "descriptors",
]

_CLOSED = {
    *("EndOfStream", "ConnectionResetError", "BrokenPipeError"),
    *("BrokenResourceError", "ClosedResourceError"),
}

EXPIRED = 10
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED."""
WRONG_NAME = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


class Unavailable(Exception):  # noqa: N818 - a state, handled wherever it is raised
    """No answer from Valkey, and why."""

    def __init__(self, cause: Cause, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause: Cause = cause
        self.detail = detail


_ACL = (
    "{said}; the user needs: ACL SETUSER <user> ~{{<REDIS_PREFIX>*"
    " &<REDIS_PREFIX>:bus:* +evalsha +eval +publish +subscribe +ping +hello, and what"
    " the scripts call: +@hash +@sortedset +@set +@string +pexpire +time"
    " (Redis 7 gives a new user no channels)"
)


def explain(exc: BaseException, url: str) -> Unavailable:
    """Say in our terms why Valkey did not answer."""
    place = urlsplit(url)
    where = f"{place.hostname}:{place.port or 6379}"
    tls = place.scheme == "rediss"
    hint = (
        "a port without TLS needs redis://, not rediss://"
        if tls
        else "a port with TLS needs rediss://, not redis://"
    )
    chain = list(_chain(exc))
    for link in chain:
        found = _explain_one(link, where, hint if tls else "")
        if found is not None:
            return found
    names = [type(one).__name__ for one in chain]
    if _CLOSED & set(names):
        return Unavailable("unavailable", f"{where} closed the connection ({hint})")
    if "InvalidResponse" in names:
        return Unavailable("unavailable", f"what answers at {where} is no Redis")
    return Unavailable("unavailable", names[0])


def _explain_one(exc: BaseException, where: str, hint: str) -> Unavailable | None:
    match exc:
        case Unavailable():
            return exc
        case ssl.SSLCertVerificationError():
            return Unavailable("tls", _certificate(exc, where))
        case ssl.SSLError():
            return Unavailable("tls", f"no TLS with {where}: {exc.reason} ({hint})")
        case socket.gaierror():
            return Unavailable("dns", f"no address for {where} ({exc.strerror})")
        case ConnectionRefusedError():
            return Unavailable("refused", f"nobody listens at {where}")
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return Unavailable(
                "descriptors", "this process has no file descriptor left"
            )
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH):
            return Unavailable("unavailable", f"no way to {where} ({exc.strerror})")
        case TimeoutError() | trio.TooSlowError():
            what = f"connecting to {where}" + (f" ({hint})" if hint else "")
            return Unavailable("timeout", what)
    return _explain_reply(exc)


def _explain_reply(exc: BaseException) -> Unavailable | None:
    """Explain what the server itself answered."""
    said = str(exc)[:160]
    match exc:
        case AskError() | ClusterCrossSlotError() | ClusterDownError():
            return Unavailable("cluster", str(ClusterRefusedError()))
        case AuthorizationError():
            return Unavailable("acl", _ACL.format(said=said))
        case AuthenticationError():
            return Unavailable("password", "refused; check the password in REDIS_URL")
        case ReadOnlyError():
            return Unavailable("unavailable", "a replica, which takes no writes")
        case BusyLoadingError():
            return Unavailable("unavailable", "the server is loading its data")
        case ProtocolError() | UnknownCommandError():
            return Unavailable("unavailable", f"expected Redis 6 or newer: {said}")
        case ResponseError() if said.startswith("OOM"):
            return Unavailable("full", said)
        case ResponseError() if "NOPERM" in said or "permission" in said.lower():
            # From inside a script, where the error has a prefix of its own.
            return Unavailable("acl", _ACL.format(said=said))
        case ResponseError() if re.search("invalid password|WRONGPASS", said):
            return Unavailable("password", "refused; check the password in REDIS_URL")
        case ResponseError() if "READONLY" in said:
            return Unavailable("unavailable", "a replica, which takes no writes")
        case ResponseError():
            return Unavailable("unavailable", said)
    return None


def _certificate(exc: ssl.SSLCertVerificationError, where: str) -> str:
    if exc.verify_code == EXPIRED:
        return f"the certificate of {where} has expired; renew it"
    if exc.verify_code in WRONG_NAME:
        return f"the certificate of {where} is for another name; check REDIS_URL's host"
    return (
        f"the certificate of {where} is not trusted ({exc.verify_message});"
        " set SSL_CERT_FILE to its authority"
    )


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it came from, the outermost first."""
    todo, seen = [exc], set()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, BaseExceptionGroup):
            todo += reversed(one.exceptions)
        else:
            yield one
        todo += [up for up in (one.__context__, one.__cause__) if up is not None]

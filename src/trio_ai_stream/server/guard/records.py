"""What the guard logs: one function for each record, with its event's name.

Through the standard library's logging, since the guard also serves under a plain
Hypercorn; our own log takes the name from the record (`telemetry/interception.py`).
"""

from __future__ import annotations

import logging
from typing import Any, Final

log: Final = logging.getLogger("trio_ai_stream.guard")


def drain_began(live: int, at_most_s: float) -> None:
    """Log that a drain has begun."""
    text = "draining: %d live, for at most %g s"
    log.info(text, live, at_most_s, extra=_event("drain_began"))


def drain_over(live: int) -> None:
    """Log that the drain is over before all exchanges were."""
    text = "the drain is over: ending %d live exchanges"
    log.info(text, live, extra=_event("drain_over"))


def accept_failed(exc: Exception) -> None:
    """Log that the process has no room for another connection."""
    text = "cannot accept a connection: %s"
    log.warning(text, str(exc) or "no memory is left", extra=_event("accept_failed"))


def descriptors_scarce(wanted: int, allowed: int) -> None:
    """Log that clients may be refused for want of descriptors."""
    text = (
        "MAX_CONNECTIONS and MAX_CONCURRENT_STREAMS may need %d file descriptors, and"
        " %d are allowed; raise the limit (LimitNOFILE, ulimit -n) or lower them"
    )
    log.warning(text, wanted, allowed, extra=_event("descriptors_scarce"))


def listeners_closed() -> None:
    """Log that another process has shut down the sockets that this one accepts from."""
    text = "every listening socket has been shut down elsewhere; draining"
    log.error(text, extra=_event("listeners_closed"))


def certificate_reloaded(path: str) -> None:
    """Log that new connections get the certificate as it is in its file now."""
    text = "read the certificate %s again"
    log.info(text, path, extra=_event("certificate_reloaded"))


def reload_failed(exc: Exception) -> None:
    """Log what a reload has found wrong; that part stays as it was."""
    text = "the reload changes nothing here: %s"
    log.error(text, exc, extra=_event("reload_failed"))


def callback_failed(exc: Exception) -> None:
    """Log the exception of a callback; the others are called all the same."""
    text = "a callback failed: %r"
    log.error(text, exc, exc_info=exc, extra=_event("callback_error"))


def connection_failed(connection: object, exc: BaseException) -> None:
    """Log the exception which has ended a connection."""
    text = "contained a failure of %s"
    log.error(text, connection, exc_info=exc, extra=_event("connection_error"))


def stream_failed(stream_id: int, connection: object, exc: BaseException) -> None:
    """Log the exception which has ended one HTTP/2 stream."""
    text = "contained a failure of stream %d, %s"
    log.error(text, stream_id, connection, exc_info=exc, extra=_event("stream_error"))


def application_failed(connection: object, exc: BaseException) -> None:
    """Log the exception which the application has raised."""
    text = "the application failed on %s"
    log.error(text, connection, exc_info=exc, extra=_event("application_error"))


def response_failed(connection: object, exc: BaseException) -> None:
    """Log the exception which has kept a response from its end."""
    text = "a response could not be ended on %s"
    log.error(text, connection, exc_info=exc, extra=_event("response_error"))


def _event(name: str) -> dict[str, Any]:
    return {"event": name}

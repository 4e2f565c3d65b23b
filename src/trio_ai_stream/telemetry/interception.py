"""Records of the standard library's logging go through the same sinks.

Hypercorn assigns its loggers' handlers when it starts, which is after the application
was made, so a handler put there earlier would be lost; a filter on the logger stays.
"""

from __future__ import annotations

import logging

from loguru import logger

# They log each request at INFO; our own record says more. Their warnings stay.
_QUIET = ("httpx", "httpcore")
_DIVERTED = ("hypercorn.error", "hypercorn.access")


class InterceptHandler(logging.Handler):
    """Hands each standard record on to loguru, with its level and exception."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log `record` again; its logger's name is bound as `logger`.

        An `event` that the record was given by `extra` names it here too.
        """
        level: str | int
        try:
            level = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError) as exc:
            message = f"{record.msg} (arguments do not fit: {exc})"
        event = vars(record).get("event")  # by `extra={"event": …}`
        bound = logger.bind(logger=record.name, event=event)
        bound = bound.opt(exception=record.exc_info)
        # The message goes in as an argument: its braces are nobody's format.
        bound.log(level, "{}", message)


class _Divert(logging.Filter):
    """Takes a logger's records away from its own handlers."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler

    def filter(self, record: logging.LogRecord) -> bool:
        self._handler.handle(record)
        return False


def intercept_stdlib(level: str) -> None:
    """Send all standard records of at least `level`, and warnings, to loguru.

    Idempotent: what an earlier call put in place is replaced.
    """
    handler = InterceptHandler()
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if isinstance(h, InterceptHandler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(logging.getLevelName(level) if level != "TRACE" else 5)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _DIVERTED:
        diverted = logging.getLogger(name)
        for old in [f for f in diverted.filters if isinstance(f, _Divert)]:
            diverted.removeFilter(old)
        diverted.addFilter(_Divert(handler))
    logging.captureWarnings(True)

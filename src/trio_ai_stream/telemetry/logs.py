"""The one log: loguru's sinks, and everything else's records through them.

Call `configure_logging` once, before anything logs. Then

    logger.info("stream ended", event="stream_ended", outcome="completed", events=12)

is one record; `event` names it for machines and the other keywords become its fields.
Messages are literals: whatever a client or upstream said is a field, because loguru
formats a message which has keywords. The request id is set once for a request, in
`REQUEST_ID`, and follows it into the tasks it starts, through Trio's task context; a
record that was bound to an id of its own keeps that.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TextIO

from loguru import logger

from trio_ai_stream.telemetry.log_rendering import redact, render_json, render_text
from trio_ai_stream.telemetry.log_sink import LogSink

if TYPE_CHECKING:
    from loguru import Message, Record

LogFormat = Literal["auto", "text", "json"]
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


class _Log:
    """What `configure_logging` put in place last."""

    handler_id: int | None = None
    sink: LogSink | None = None


def configure_logging(
    level: str = "INFO", fmt: LogFormat = "auto", stream: TextIO | None = None
) -> None:
    """Send every record of at least `level` to `stream` (default: stderr).

    `auto` is coloured text where the stream is a terminal, else JSON lines. Idempotent:
    a later call replaces what an earlier one put in place; sinks that others added to
    loguru stay. `diagnose` is off because it prints the values of local variables,
    which are keys and prompts; `backtrace` is off because frames above the catch are
    the server's own and the same each time. `enqueue` is off, see `log_sink`.
    """
    stream = sys.stderr if stream is None else stream
    terminal = _is_terminal(stream)
    as_json = fmt == "json" or (fmt == "auto" and not terminal)
    sink = LogSink(stream, _notice_json if as_json else _notice_text)

    def write(message: Message) -> None:
        sink.write(redact(_render(message.record, as_json=as_json, coloured=terminal)))

    # Handler 0 is the one that loguru starts with.
    with contextlib.suppress(ValueError):
        logger.remove(0 if _Log.handler_id is None else _Log.handler_id)
    _Log.handler_id = logger.add(
        write,
        level=level,
        format=lambda _record: "",  # rendered in `write`, not by loguru
        diagnose=False,
        backtrace=False,
        enqueue=False,
        catch=True,  # `write` does not raise; were it to, the caller must not feel it
    )
    _Log.sink = sink
    logger.configure(patcher=_add_request_id)
    intercept_stdlib(level)


def _add_request_id(record: Record) -> None:
    """Add the request's id: loguru's own `contextualize` costs a live stream 0.8 kB."""
    request_id = REQUEST_ID.get()
    if request_id is not None:
        record["extra"].setdefault("request_id", request_id)


def _render(record: Record, *, as_json: bool, coloured: bool) -> str:
    try:
        return (
            render_json(record) if as_json else render_text(record, coloured=coloured)
        )
    except Exception as exc:
        # A bound object's __str__ may raise anything, and
        # loguru would print the record and its traceback itself, past the redaction.
        problem = f"a log record could not be rendered: {type(exc).__name__}"
        return f'{{"level": "ERROR", "message": "{problem}"}}\n'


def dropped_records() -> int:
    """Return how many records were dropped because the log had no room for them."""
    return 0 if _Log.sink is None else _Log.sink.dropped


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def _notice_json(count: int) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return (
        f'{{"time": "{now}", "level": "WARNING", "message": "log records dropped:'
        f' the log was not read", "event": "log_records_dropped",'
        f' "request_id": null, "count": {count}}}\n'
    )


def _notice_text(count: int) -> str:
    return f"WARNING  {count} log records dropped: the log was not read\n"


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

    Hypercorn assigns its loggers' handlers when it starts, which is after this; so a
    handler put there would be lost, and a filter on the logger takes its place.
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

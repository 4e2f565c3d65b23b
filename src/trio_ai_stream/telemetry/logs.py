"""The one log: loguru's sinks, and everything else's records through them.

Call `configure_logging` once, before anything logs. Then

    logger.info("stream ended", event="stream_ended", outcome="completed", events=12)

is one record; `event` names it for machines and the other keywords become its fields.
Messages are literals: whatever a client or upstream said is a field, because loguru
formats a message which has keywords. The request id is set once for a request, in
`REQUEST_ID`, and follows it into the tasks it starts; a record that was bound to an id
of its own keeps that.

A record is written at once, by the thread that made it: a queue with a writer thread
would lose the last records of a crash, which are the ones that matter. But a plain
write to a pipe whose reader has stopped blocks every stream of the process. So each
piece is written only when `poll` says that the descriptor has room, in pieces that fit
into that room (PIPE_BUF); otherwise the record is dropped and counted, and the next one
that gets through is preceded by one which says how many were lost.

O_NONBLOCK on the descriptor that was handed to us would change the stderr of every
process that shares it, and the shell's after us: it belongs to the open file, not to
the descriptor. So a pipe or a terminal is opened once more, for us alone. Without that
a terminal that says it has room may have less than the piece needs, and two processes
may both find room for one piece. Where it cannot be opened (another user's) that is
left: the write then waits until somebody reads.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import stat
import sys
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

from loguru import logger

from trio_ai_stream.telemetry.log_rendering import (
    redact,
    render_json,
    render_text,
    shown_client,
)
from trio_ai_stream.wire.record import Record

if TYPE_CHECKING:
    import loguru


_ROOM = select.PIPE_BUF
"""Bytes that a pipe takes whole once poll reports it as writable (POSIX)."""


class LogSink:
    """Writes finished records to one text stream; never raises, never waits.

    `notice` renders the record that reports how many were dropped.
    """

    def __init__(self, stream: TextIO, notice: Callable[[int], str]) -> None:
        self._stream = stream
        self._notice = notice
        shared = _descriptor_of(stream)
        self._own = None if shared is None else _opened_again(shared)
        self._descriptor = shared if self._own is None else self._own
        self._poll = select.poll()
        if self._descriptor is not None:
            self._poll.register(self._descriptor, select.POLLOUT)
        self._torn = False
        self._unreported = 0
        self.dropped = 0

    def write(self, text: str) -> None:
        """Write one record, or drop it and count it."""
        if self._descriptor is None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()
            return
        if self._unreported and self._send(self._notice(self._unreported)):
            self._unreported = 0
        if self._unreported or not self._send(text):
            self.dropped += 1
            self._unreported += 1

    def close(self) -> None:
        """Let go of what was opened here; no record may come after it."""
        if self._own is not None:
            os.close(self._own)

    def _send(self, text: str) -> bool:
        # A record that was cut short is closed by a newline before the next one.
        data = text.encode("utf-8", "backslashreplace")
        data = b"\n" + data if self._torn else data
        rest = memoryview(data)
        while rest:
            written = self._write_piece(rest[:_ROOM])
            if not written:
                self._torn = self._torn or len(rest) < len(data)
                return False
            rest = rest[written:]
        self._torn = False
        return True

    def _write_piece(self, piece: memoryview) -> int:
        # Gone (EPIPE, EBADF, ENOSPC) or full after all (EAGAIN): a log that can't be
        # written has nobody to tell.
        with contextlib.suppress(OSError):
            for descriptor, event in self._poll.poll(0):
                if event & select.POLLOUT:
                    return os.write(descriptor, piece)
        return 0


def _descriptor_of(stream: TextIO) -> int | None:
    """Return the stream's descriptor, or None where it is held in memory."""
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError, io.UnsupportedOperation):
        return None


def _opened_again(descriptor: int) -> int | None:
    """Open a pipe or a terminal for us alone, never to wait; None for all else.

    A file is not: its place, and whether it is appended to, are shared.
    """
    path, flags = f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode) or os.isatty(descriptor):
            return os.open(path, flags | os.O_NOCTTY)
    return None


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

    `auto` is coloured text where the stream is a terminal, else JSON lines. A later
    call replaces what an earlier one put in place; sinks that others added to loguru
    stay.
    """
    stream = sys.stderr if stream is None else stream
    terminal = _is_terminal(stream)
    as_json = fmt == "json" or (fmt == "auto" and not terminal)
    sink = LogSink(stream, _notice_json if as_json else _notice_text)

    def write(message: loguru.Message) -> None:
        sink.write(redact(_render(message.record, as_json=as_json, coloured=terminal)))

    # Handler 0 is the one that loguru starts with.
    with contextlib.suppress(ValueError):
        logger.remove(0 if _Log.handler_id is None else _Log.handler_id)
    _Log.handler_id = logger.add(
        write,
        level=level,
        format=lambda _record: "",  # rendered in `write`, not by loguru
        diagnose=False,  # it prints local variables, which are keys and prompts
        backtrace=False,  # frames above the catch are the same each time
        enqueue=False,
        catch=True,  # `write` does not raise; were it to, the caller must not feel it
    )
    if _Log.sink is not None:
        _Log.sink.close()
    _Log.sink = sink
    logger.configure(patcher=_add_request_id)
    intercept_stdlib(level)


def _add_request_id(record: loguru.Record) -> None:
    """Add the request's id: loguru's own `contextualize` costs a live stream 0.8 kB."""
    request_id = REQUEST_ID.get()
    if request_id is not None:
        record["extra"].setdefault("request_id", request_id)


def _render(record: loguru.Record, *, as_json: bool, coloured: bool) -> str:
    try:
        return (
            render_json(record) if as_json else render_text(record, coloured=coloured)
        )
    except Exception as exc:
        # A bound object's __str__ may raise anything, and loguru would print the record
        # and its traceback itself, past the redaction.
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
        f' the log was not read, or its disk is full",'
        f' "event": "log_records_dropped",'
        f' "request_id": null, "count": {count}}}\n'
    )


def _notice_text(count: int) -> str:
    why = "the log was not read, or its disk is full"
    return f"WARNING  {count} log records dropped: {why}\n"


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


def log_stream(clients: Literal["full", "network", "none"], record: Record) -> None:
    """Write the one `stream ended` record of a stream, its client named as told."""
    fields: dict[str, Any] = {
        "event": "stream_ended",
        "outcome": record.outcome.value,
        "fault": record.fault,
        "detail": record.detail or None,
        "client": shown_client(record.owner, clients),
        "endpoint": record.endpoint,
        "model": record.model,
        "first_token_ms": _ms(record.first_content_s),
        "cancel_latency_ms": _ms(record.cancel_latency_s),
        "duration_ms": _ms(record.duration_s),
        "events": record.events,
        "blocks": record.blocks,
        "bytes": record.bytes_out,
        "attempts": record.attempts,
        "told": record.told,
        "finish_reason": record.finish_reason,
        "generation_id": record.generation_id,
        **record.bill.fields(),
    }
    if record.resumes or record.detached_s:
        fields |= {"resumes": record.resumes, "detached_ms": _ms(record.detached_s)}
    logger.bind(request_id=record.request_id).info("stream ended", **fields)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)

"""How one log record reads, and what it must not say.

A record is a JSON line for machines, a coloured line for people. Control characters of
a message are escaped, so that no client can forge a second record or send codes to a
terminal.

Code never logs a secret on purpose; `redact` catches the accident: a foreign exception
whose text quotes a URL with a password, or a header in a library's record. Each
registered secret is replaced in the finished text of every record, tracebacks included,
in each spelling that rendering can give it.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import re
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

if TYPE_CHECKING:
    from loguru import Record

TRACEBACK_LIMIT = 16_384
"""Characters of one traceback: an exception group of a thousand children ends there."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
# Line separators, and marks that let a terminal show a text in another order.
_MARKS = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_CONTROLS |= {0x0A: "\\n", 0x0D: "\\r", **{code: f"\\u{code:04x}" for code in _MARKS}}
# What JSON lets stand in a string, and terminals or readers of lines do not.
_BEYOND_JSON = {code: f"\\u{code:04x}" for code in (*range(127, 160), *_MARKS)}
_IN_TRACEBACK = {code: text for code, text in _CONTROLS.items() if code != 0x0A}
_RESET, _DIM = "\x1b[0m", "\x1b[2m"
_COLOURS = {
    "TRACE": "\x1b[2m",
    "DEBUG": "\x1b[36m",
    "INFO": "\x1b[32m",
    "SUCCESS": "\x1b[1;32m",
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "CRITICAL": "\x1b[1;41m",
}
# Columns of the clock, and of the last thing that is said before a request's id.
_CLOCK, _REST = 12, 27
_LEADING = ("event", "request_id")
# Nor is the name of the standard library's logger for people.
_OMITTED = (*_LEADING, "logger")
# Whose doing the end of a stream was, as a colour; an answer that is whole is nobody's.
_FAULTS = {None: "INFO", "caller": "TRACE", "upstream": "WARNING", "server": "ERROR"}


def render_json(record: Record) -> str:
    """Return one line of JSON: time, level, message, event, request_id, extras.

    `time` is ISO 8601 in UTC; `event` and `request_id` are null where nothing bound
    them; `exception` holds the traceback of a record that has one. A bound extra never
    replaces one of these keys: it gets an underscore in front.
    """
    extra = record["extra"]
    line: dict[str, Any] = {
        "time": record["time"].astimezone(UTC).isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "message": record["message"],
        "event": extra.get("event"),
        "request_id": extra.get("request_id"),
    }
    taken = {*line, "exception"}
    for name, value in extra.items():
        if name not in _LEADING:
            line[f"_{name}" if name in taken else name] = value
    if trace := _traceback(record):
        line["exception"] = trace
    return as_json(line) + "\n"


def render_text(record: Record, *, coloured: bool) -> str:
    """Return one line for people, in local time, and the traceback below it.

    A request's id is cut to what tells it from others on a screen. Why a stream failed
    stands below its line, where it does not fit into it.
    """
    extra = record["extra"]
    level = record["level"].name
    paint, dim, reset = ("", "", "")
    if coloured:
        paint, dim, reset = _COLOURS.get(level, ""), _DIM, _RESET
    clock = f"{dim}{record['time'].strftime('%H:%M:%S.%f')[:-3]}{reset}"
    request_id = escape(extra.get("request_id") or "")[:8]
    if (columns := _columns(extra)) is not None:
        first, numbers, rest = columns
        if coloured:
            paint = _COLOURS[_weight(extra, level)]
        line = f"{paint}{first:<20}{reset} {numbers}  "
        line = f"{clock} {line}{dim}{rest:<{_REST}} {request_id}"
        return f"{line}{_below(extra.get('detail'))}{reset}\n"
    line = f"{clock} {paint}{level:<8}{reset}"
    line += f" {dim}[{request_id}]{reset}" if request_id else ""
    line += f" {escape(record['message'])}"
    fields = _fields(extra)
    line += f"  {dim}{fields}{reset}" if fields else ""
    trace = _traceback(record)
    return f"{line}\n{trace.translate(_IN_TRACEBACK)}\n" if trace else f"{line}\n"


def _columns(extra: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return what is said of every stream or request for what is left of 100 columns.

    First what became of it, then two numbers, then why, or the model. All of the
    record's fields are in the JSON lines.
    """
    if extra.get("event") == "stream_ended":
        seconds = f"{extra['duration_ms'] / 1000:.2f} s"
        size = f"{extra['events']} ev {extra['bytes'] / 1000:.1f} kB"
        detail = escape(extra.get("detail") or "")
        rest = detail if 0 < len(detail) <= _REST else escape(extra["model"])[:_REST]
        return extra["outcome"], f"{seconds:>9} {size:>18}", rest
    if extra.get("event") == "stream_billed":
        cost = extra.get("cost_usd")
        price = "-" if cost is None else f"${cost:.6f}"
        tokens = f"{extra['prompt_tokens']} + {extra['completion_tokens']} tokens"
        first = f"billed: {extra['usage']}"
        return first, f"{price:>9} {tokens:>18}", escape(extra["model"])[:_REST]
    if extra.get("event") == "request_ended":
        seconds = f"{extra['duration_ms'] / 1000:.2f} s"
        client = escape(extra["client"] or "")[:18]
        first = f"{extra['status'] or '-'} {escape(extra['method'])[:16]}"
        return first, f"{seconds:>9} {client:>18}", escape(extra["path"])[:_REST]
    if extra.get("event") == "stream_retried":
        seconds = f"{extra['wait_ms'] / 1000:.2f} s"
        first = f"retry: attempt {extra['attempt']}"
        cause = escape(extra["cause"])[: _REST + 19]
        return first, f"{seconds:>9}", f"{cause:<{_REST + 19}}"
    return None


def _below(detail: str | None) -> str:
    """Return a line with a reason that is too long for a stream's own.

    A terminal breaks it where it must: a secret that is cut is not found any more.
    """
    if detail is None or len(detail := escape(detail)) <= _REST:
        return ""
    return f"\n{'':<{_CLOCK}} {detail}"


def _weight(extra: Mapping[str, Any], level: str) -> str:
    """Return the level whose colour says whose doing a record is."""
    if extra.get("event") == "stream_ended":
        return _FAULTS.get(extra.get("fault"), level)
    status = extra.get("status") or 0
    return "ERROR" if status >= 500 else "WARNING" if status >= 400 else level


def _fields(extra: Mapping[str, Any]) -> str:
    pairs = (
        f"{name}={escape(value)}"
        for name, value in extra.items()
        if name not in _OMITTED and value is not None
    )
    return " ".join(pairs)


def as_json(value: object) -> str:
    """Return the value in one line of JSON that no terminal obeys."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text.translate(_BEYOND_JSON)


def escape(value: object) -> str:
    """Return the value's text with its control characters spelt out."""
    return str(value).translate(_CONTROLS)


def _traceback(record: Record) -> str:
    caught = record["exception"]
    if caught is None or caught.type is None:
        return ""
    lines = traceback.format_exception(caught.type, caught.value, caught.traceback)
    text = "".join(lines).rstrip("\n")
    if len(text) > TRACEBACK_LIMIT:
        half = TRACEBACK_LIMIT // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"
    return text


MASK = "[redacted]"
MINIMUM_LENGTH = 6
"""Shorter values are not replaced: they would tear holes into ordinary words."""

_spellings: set[str] = set()
_pattern: re.Pattern[str] | None = None


def register_secrets(values: Iterable[str]) -> None:
    """Have `values` replaced in every later log record; idempotent.

    Values under `MINIMUM_LENGTH` characters are ignored.
    """
    global _pattern
    known = len(_spellings)
    for value in values:
        if len(value) >= MINIMUM_LENGTH:
            _spellings.update(
                {
                    value,
                    escape(value),
                    json.dumps(value)[1:-1],
                    as_json(value)[1:-1],
                    repr(value)[1:-1],
                    quote(value, safe=""),
                }
            )
    if len(_spellings) == known:
        return
    # Once for all, because it takes as long as there are secrets. The longest first, so
    # that a secret which contains another is masked whole.
    ordered = sorted(_spellings, key=len, reverse=True)
    _pattern = re.compile("|".join(re.escape(spelling) for spelling in ordered))


def forget_secrets() -> None:
    """Forget all registered secrets; for tests, which share a process."""
    global _pattern
    _spellings.clear()
    _pattern = None


def redact(text: str) -> str:
    """Return `text` with every registered secret replaced by `MASK`."""
    return _pattern.sub(MASK, text) if _pattern is not None else text


@functools.lru_cache(maxsize=1024)
def shown_client(client_id: str, how: Literal["full", "network", "none"]) -> str | None:
    """Return how the log names a client, as LOG_CLIENTS says; None for not at all.

    `network` cuts addresses to /24 and /48. A key's id is its hash and stands for
    nobody outside, so `network` leaves it whole.
    """
    if how == "none" or not client_id:
        return None
    if how == "full" or not client_id.startswith("ip:"):
        return client_id
    address = ipaddress.ip_network(client_id.removeprefix("ip:"))
    wide = address.supernet(new_prefix=24 if address.version == 4 else 48)
    return f"ip:{wide}"

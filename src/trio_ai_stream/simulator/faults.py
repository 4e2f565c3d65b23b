"""The faults a request may ask for through its model name, and how they are read.

A model name is `simulator/NAME?key=value&key=value`: NAME is a preset, which is itself
a list of keys, and the keys after `?` override it. Pure: no clock, no I/O. Every key is
a field of `Faults`, so the field's name is the key's name and the description in its
metadata is the one the documentation is checked against. `GET /models` lists the
presets, so they are also the menu of the web page.
"""

# ruff: noqa: RUF009  _key() makes a dataclass field, which ruff cannot see

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import unquote_plus


class Preset(NamedTuple):
    """One named fault: what a person reads in the menu, and the keys it stands for."""

    description: str
    query: str


PRESETS: dict[str, Preset] = {
    # healthy
    "default": Preset(
        "A healthy answer at the pace of a real model",
        "first_token_ms=150&delay_ms=15&jitter_ms=10",
    ),
    "fast": Preset("A healthy answer without any delay, many events a write", ""),
    "echo": Preset("The last user message comes back, word for word", "echo=1"),
    "slow": Preset(
        "A healthy answer, one word every half second",
        "first_token_ms=1000&delay_ms=500",
    ),
    "endless": Preset("Content that never ends", "endless=1&delay_ms=20"),
    "flood": Preset("Content that never ends, as fast as it is read", "endless=1"),
    "bursts": Preset("Ten words at once, then a pause", "burst=10&delay_ms=200"),
    "reasoning": Preset("Reasoning before the answer", "reasoning=20&delay_ms=10"),
    "thinking": Preset(
        "Two seconds of comments before the answer",
        "comments_ms=2000&comment_every_ms=250&delay_ms=10",
    ),
    "tools": Preset("One tool call in fragments", "tool_calls=1&delay_ms=10"),
    "agent": Preset(
        "Reasoning, some words, then two tool calls",
        "reasoning=5&preface=4&tool_calls=2&delay_ms=10",
    ),
    "refusal": Preset("The model refuses", "refusal=1"),
    "filtered": Preset(
        "finish_reason content_filter after five words",
        "chunks=5&finish=content_filter&delay_ms=10",
    ),
    # time
    "no-answer": Preset("The request is read and never answered", "headers_ms=forever"),
    "late-headers": Preset("The head comes after three seconds", "headers_ms=3000"),
    "late-token": Preset(
        "The head at once, the first word after five seconds", "first_token_ms=5000"
    ),
    "no-token": Preset(
        "The head at once, then nothing at all", "first_token_ms=forever"
    ),
    "comments-only": Preset(
        "The head at once, then comments for ever", "comments_ms=forever"
    ),
    "silent": Preset(
        "Five words, then silence on an open connection", "end=silence&at=5&delay_ms=10"
    ),
    "mumbling": Preset(
        "Five words, then comments for ever", "end=comments&at=5&delay_ms=10"
    ),
    "late-end": Preset("The body ends three seconds after [DONE]", "done_ms=3000"),
    "slow-read": Preset(
        "The request body is read at 1 kB a tenth of a second", "read_ms=100"
    ),
    # broken connections
    "refuse": Preset("The connection is closed instead of an answer", "refuse=drop"),
    "refuse-reset": Preset(
        "The connection is reset instead of an answer", "refuse=reset"
    ),
    "drop": Preset(
        "The connection is closed in mid-body after five words",
        "end=drop&at=5&delay_ms=10",
    ),
    "reset": Preset(
        "The connection is reset after five words", "end=reset&at=5&delay_ms=10"
    ),
    "truncated": Preset(
        "A clean end of body after five words: no finish_reason, no [DONE]",
        "end=truncate&at=5&delay_ms=10",
    ),
    "no-done": Preset("finish_reason and usage, but no [DONE]", "end=no_done"),
    # errors
    "error": Preset("An error event after five words", "end=error&at=5&delay_ms=10"),
    "error-string-code": Preset(
        "An error event whose code is a string",
        "end=error&at=5&code=server_error&delay_ms=10",
    ),
    "error-empty-choices": Preset(
        "An error event with empty choices and no [DONE]",
        "end=error&at=5&code=429&shape=empty&error_done=0&delay_ms=10",
    ),
    "error-bare": Preset(
        "An error event that is nothing but the error",
        "end=error&at=5&shape=bare&error_done=0&delay_ms=10",
    ),
    "error-first": Preset("An error event under 200, first of all", "end=error&at=0"),
    "error-200-json": Preset("A JSON error body under 200", "status=200&code=502"),
    "bad-request": Preset("400", "status=400"),
    "unauthorized": Preset("401", "status=401"),
    "no-credit": Preset("402", "status=402"),
    "forbidden": Preset("403", "status=403"),
    "not-found": Preset("404", "status=404"),
    "timeout": Preset("408", "status=408"),
    "too-large": Preset("413", "status=413"),
    "unprocessable": Preset("422", "status=422"),
    "rate-limited": Preset("429 with Retry-After: 2", "status=429&retry_after=2"),
    "at-capacity": Preset(
        "429 with error.availability", "status=429&body=availability&retry_after=40"
    ),
    "server-error": Preset("500", "status=500"),
    "bad-gateway": Preset("502", "status=502"),
    "overloaded": Preset("503 with Retry-After: 1", "status=503&retry_after=1"),
    "gateway-timeout": Preset("504", "status=504"),
    "edge-timeout": Preset("524 with Cloudflare's HTML", "status=524&body=html"),
    "provider-overloaded": Preset("529", "status=529"),
    "endless-error": Preset("500 with a body without end", "status=500&body=endless"),
    "flaky": Preset(
        "503 twice for one request id, then a healthy answer",
        "status=503&fail_times=2&retry_after=0",
    ),
    # the wire
    "bad-json": Preset("An event that is not JSON", "corrupt=json&at=5&delay_ms=10"),
    "bad-utf8": Preset("An event that is not UTF-8", "corrupt=utf8&at=5&delay_ms=10"),
    "giant": Preset("One event of 1 MiB", "corrupt=giant&at=5&delay_ms=10"),
    "odd-fields": Preset(
        "Other SSE fields between the events", "corrupt=fields&at=5&delay_ms=10"
    ),
    "fragments": Preset("Every seven bytes a write of its own", "fragment=7&chunks=20"),
    "crlf": Preset("CRLF line ends, no space after data:", "eol=crlf&space=0"),
    "merged-usage": Preset("usage on the last choice's event", "usage=last"),
    "trailing": Preset("Junk after [DONE]", "trailing=1"),
    "bill-late": Preset(
        "Content that never ends; its bill comes three seconds after the end",
        "endless=1&delay_ms=20&bill_ms=3000",
    ),
    "bill-never": Preset(
        "Content that never ends, and no bill", "endless=1&delay_ms=20&bill=never"
    ),
    "goes-on": Preset(
        "A provider that goes on for 400 tokens after the client has left",
        "endless=1&delay_ms=20&bill_more=400&provider=Deaf",
    ),
    "close-delimited": Preset("The body ends with the connection", "framing=close"),
}


PREFIX = "simulator/"
LONGEST_MS = 86_400_000.0  # a day: longer than any budget a test would set
LARGEST_BYTES = 1 << 28  # 256 MiB: past every limit a client should have

Ending = Literal[
    "ok", "silence", "comments", "drop", "reset", "truncate", "no_done", "error"
]
Body = Literal["json", "availability", "html", "text", "empty", "endless", "cut"]
Corruption = Literal["none", "json", "utf8", "giant", "fields"]
ErrorShape = Literal["choice", "empty", "bare"]
Eol = Literal["lf", "crlf", "cr"]
UsagePlace = Literal["own", "last", "none"]
Framing = Literal["chunked", "close"]
Refuse = Literal["no", "drop", "reset"]
BillKind = Literal["ok", "never", "wrong", "odd"]


class FaultError(ValueError):
    """A model name that the simulator cannot follow; the text names the bad key."""


def _ms(text: str) -> float:
    if text == "forever":
        return math.inf
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= LONGEST_MS:
        msg = f"milliseconds from 0 to {LONGEST_MS:.0f}, or 'forever'"
        raise FaultError(msg)
    return value


def _count(most: int, least: int = 0) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise FaultError(f"a whole number from {least} to {most}")
        return int(text)

    return parse


def _flag(text: str) -> bool:
    if text not in ("0", "1", "true", "false"):
        raise FaultError("one of 0, 1, true, false")
    return text in ("1", "true")


def _choice(kind: Any) -> Callable[[str], str]:
    names: tuple[str, ...] = get_args(kind)

    def parse(text: str) -> str:
        if text not in names:
            raise FaultError("one of " + ", ".join(names))
        return text

    return parse


def _status(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) == 3 else 0
    if value != 200 and not 400 <= value <= 599:
        raise FaultError("200 or an HTTP status from 400 to 599")
    return value


def _word(text: str) -> str:
    if not 1 <= len(text) <= 200 or not text.isprintable() or not text.isascii():
        raise FaultError("1 to 200 printable ASCII characters")
    return text


def _code(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else _word(text)


def _key(default: Any, parse: Callable[[str], Any], doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"parse": parse, "doc": doc})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What one response does; every default is a healthy stream without delays."""

    # pace
    chunks: int | None = _key(None, _count(10**9), "content events in the answer")
    endless: bool = _key(False, _flag, "content events without end")
    delay_ms: float = _key(0.0, _ms, "from one content write to the next")
    jitter_ms: float = _key(0.0, _ms, "seeded uniform addition to each delay")
    burst: int | None = _key(None, _count(10_000, 1), "content events in one write")
    headers_ms: float = _key(0.0, _ms, "from the request to the response's head")
    opening_ms: float = _key(0.0, _ms, "comments only, for so long, before any event")
    first_token_ms: float = _key(0.0, _ms, "from the head to the first content")
    comments_ms: float = _key(0.0, _ms, "comments only, for so long, before content")
    comment_every_ms: float = _key(500.0, _ms, "from one comment to the next")
    done_ms: float = _key(0.0, _ms, "from [DONE] to the end of the body")
    # endings
    end: Ending = _key("ok", _choice(Ending), "how the stream ends after `at` events")
    at: int | None = _key(None, _count(10**9), "content events before the fault")
    fail_times: int | None = _key(None, _count(1000), "attempts that fail; then well")
    refuse: Refuse = _key("no", _choice(Refuse), "close instead of answering")
    # errors
    status: int | None = _key(None, _status, "answer with this status and no stream")
    body: Body = _key("json", _choice(Body), "the body under `status`")
    retry_after: str | None = _key(None, _word, "Retry-After, seconds or an HTTP date")
    code: int | str = _key(502, _code, "`error.code` of an error in the stream")
    message: str = _key("Provider returned error", _word, "`error.message` there")
    shape: ErrorShape = _key("choice", _choice(ErrorShape), "`choices` beside it")
    error_done: bool = _key(True, _flag, "[DONE] follows the error")
    # one chunk that is not as it should be
    corrupt: Corruption = _key("none", _choice(Corruption), "a bad event at `at`")
    size: int = _key(1 << 20, _count(LARGEST_BYTES, 1), "bytes of the giant event")
    # what the answer holds
    echo: bool = _key(False, _flag, "the answer is the last user message")
    stamp: bool = _key(False, _flag, "each event's content is its monotonic_ns")
    reasoning: int = _key(0, _count(100_000), "reasoning events before content")
    refusal: bool = _key(False, _flag, "the model refuses")
    tool_calls: int = _key(0, _count(16), "tool calls, until one was answered")
    preface: int = _key(0, _count(100_000), "words before the tool calls")
    tool: str | None = _key(None, _word, "which of the request's tools is called")
    finish: str | None = _key(None, _word, "finish_reason in place of the true one")
    usage: UsagePlace = _key("own", _choice(UsagePlace), "where the usage stands")
    tag: str | None = _key(None, _word, "nothing but a name to find the record by")
    # the wire
    eol: Eol = _key("lf", _choice(Eol), "line ends of the events")
    space: bool = _key(True, _flag, "a space after `data:`")
    fragment: int | None = _key(None, _count(1 << 20, 1), "bytes in one write")
    fragment_ms: float = _key(0.0, _ms, "from one fragment to the next")
    framing: Framing = _key("chunked", _choice(Framing), "end of body by close")
    keep_alive: bool = _key(True, _flag, "the connection may be used again")
    trailing: bool = _key(False, _flag, "junk after [DONE]")
    generation_header: bool = _key(True, _flag, "X-Generation-Id in the head")
    interim: bool = _key(False, _flag, "a 103 response before the true one")
    read_ms: float = _key(0.0, _ms, "from one read of the request body to the next")
    read_bytes: int = _key(1024, _count(1 << 20, 1), "bytes in one such read")
    # the bill (`GET /generation`)
    bill: BillKind = _key("ok", _choice(BillKind), "none ever, another's, or no counts")
    bill_ms: float = _key(0.0, _ms, "from the end of the answer to its bill")
    bill_more: int = _key(0, _count(10**6), "tokens billed after the client has left")
    provider: str = _key("Simulator", _word, "who answers, in chunks and in the bill")

    def healed(self) -> Faults:
        """Return the same pace and wire without what makes the request fail."""
        kept = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in _FAILURES and getattr(self, field.name) != math.inf
        }
        return Faults(**kept)


_FAILURES = frozenset(
    ("end", "at", "fail_times", "refuse", "status", "body", "retry_after", "corrupt")
)
KEYS: dict[str, Callable[[str], Any]] = {
    field.name: field.metadata["parse"] for field in dataclasses.fields(Faults)
}


def parse_model(model: str) -> Faults:
    """Read `simulator/NAME?key=value&…`.

    Raises FaultError that names the unknown preset, the unknown key, or the key whose
    value is wrong, with what was expected.
    """
    name, _, query = model.removeprefix(PREFIX).partition("?")
    preset = PRESETS.get(name)
    if preset is None:
        meant = _meant(name, PRESETS)
        raise FaultError(
            f"{PREFIX}{name[:80]}: no such preset; {meant}GET /models lists all"
        )
    values = parse_query(preset.query)
    values.update(parse_query(query))
    return Faults(**values)


def parse_query(query: str) -> dict[str, Any]:
    """Read `key=value&key=value` into fields of `Faults`; FaultError names the key."""
    values: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        key, equals, text = pair.partition("=")
        parse = KEYS.get(key)
        if parse is None:
            meant = _meant(key, KEYS)
            raise FaultError(
                f"{key[:80]}: no such fault key; {meant}docs/simulator.md lists all"
            )
        if not equals:
            raise FaultError(f"{key}: expected {key}=value, got no value")
        value = unquote_plus(text)
        try:
            values[key] = parse(value)
        except FaultError as exc:
            raise FaultError(f"{key}: expected {exc}, got {value[:80]!r}") from exc
    return values


def _meant(name: str, known: Iterable[str]) -> str:
    """Return a question that names what is spelt nearly so, if anything is.

    Not all there is: the server in front passes on only the start of an error.
    """
    near = difflib.get_close_matches(name[:80], known, n=3)
    return f"did you mean {' or '.join(near)}? " if near else ""

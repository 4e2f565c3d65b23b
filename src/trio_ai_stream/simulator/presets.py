"""The named faults: a table of name, one-line description and fault keys.

`GET /models` lists them, so they are also the fault menu of the web page. Pure data;
faults.py gives the keys their meaning.
"""

from __future__ import annotations

from typing import NamedTuple


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
        "Five words, then silence on an open connection",
        "end=silence&at=5&delay_ms=10",
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
    "close-delimited": Preset("The body ends with the connection", "framing=close"),
}

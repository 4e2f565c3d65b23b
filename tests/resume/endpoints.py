"""What is asked of each endpoint that streams, and what differs from run to run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tests.support.completions import COMPLETIONS

_MESSAGES: Final = [{"role": "user", "content": "hello"}]
SAID: Final[Mapping[str, Mapping[str, Any]]] = {
    "/chat": {"prompt": "hello"},
    COMPLETIONS: {"messages": _MESSAGES, "stream": True},
    "/v1/messages": {"messages": _MESSAGES, "max_tokens": 99, "stream": True},
    "/v1/responses": {"input": "hello", "stream": True},
}
# What an answer ends with, whole or not. Where the API's own last event has been said,
# a cancel that comes behind it says no error.
TERMINAL: Final = {
    "/chat": re.compile(rb'"type":"(?:done|error)"'),
    COMPLETIONS: re.compile(rb'data: \[DONE\]|"finish_reason":"error"'),
    "/v1/messages": re.compile(rb"^event: (?:message_stop|error)$", re.MULTILINE),
    "/v1/responses": re.compile(
        rb"^event: (?:response\.(?:completed|failed|incomplete)|error)$", re.MULTILINE
    ),
}
VARYING: Final = re.compile(rb'"(?:created|created_at|completed_at)":\d+|gen-[\w-]+')


def error_type(path: str, frame: bytes) -> str:
    """Return what an event says that ends a connection, in its API's own shape.

    A KeyError if it is no such event.
    """
    lines = dict(line.split(b": ", 1) for line in frame.split(b"\n"))
    data = json.loads(lines[b"data"])
    if path == "/chat":
        assert data["type"] == "error"
        return str(data["error_type"])
    if path == COMPLETIONS:
        assert data["choices"][0]["finish_reason"] == "error"
        return str(data["error"]["metadata"]["error_type"])
    assert lines[b"event"] == b"error"
    assert data["type"] == "error"
    if path == "/v1/messages":
        return str(data["error"]["metadata"]["error_type"])
    return str(data["code"])

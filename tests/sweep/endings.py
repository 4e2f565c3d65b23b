"""What a response says about its end, read from the bytes that reached the client."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from tests.sweep.client import Client
from tests.sweep.scenario import Shape
from trio_ai_stream.wire.record import Outcome

LAST: Final = {
    "message_stop": "done",
    "response.completed": "done",
    "response.incomplete": "done",
    "response.failed": "upstream_failed",
}
TERMINAL: Final = ("done", "error", *LAST)
# A text's own quotes are escaped.
_MAY_END: Final = re.compile(rb'"(?:done|error|message_stop|response\.[cif]\w+)"')
# The terminal event's `error_type` by outcome; upstream's failures have types of their
# own, which say more.
ERROR_TYPES: Final = {
    Outcome.CANCELLED: "cancelled",
    Outcome.FIRST_TOKEN_TIMEOUT: "first_token_timeout",
    Outcome.STREAM_IDLE_TIMEOUT: "stream_idle_timeout",
    Outcome.DEADLINE_EXCEEDED: "deadline_exceeded",
    Outcome.SHUTDOWN: "shutting_down",
}


def terminals(client: Client, shape: Shape) -> list[str]:
    """Return the terminal events in order: `done`, or the error's type."""
    if shape == "other":
        return []
    if shape == "document":
        return _document(client.body)
    found = []
    for data in _data(client.body):
        if data == b"[DONE]":
            found += ["done"] * (shape != "responses")  # it has an end of its own
        elif not _MAY_END.search(data):
            continue  # thousands are content, and to parse each is most of a check
        elif (event := json.loads(data)).get("error"):
            found.append(_error_type(event["error"]))
        elif event.get("type") in TERMINAL:
            kind = str(event.get("error_type") or event["type"])
            found.append(LAST.get(kind, kind))
    if shape != "chat" and client.body[:1] == b"{":
        found += _document(client.body)
    return found


def ends_with_terminal(client: Client, shape: Shape) -> bool:
    """Tell whether the last event is a terminal one."""
    if shape in {"document", "other"} or client.body[:1] == b"{":
        return True
    events = _data(client.body)
    if not events:
        return True
    last = events[-1]
    if last == b"[DONE]":
        return True
    event = json.loads(last)
    return bool(event.get("error")) or event.get("type") in TERMINAL


def _data(body: bytes) -> list[bytes]:
    lines = body.split(b"\n")
    return [line[6:] for line in lines if line.startswith(b"data: ")]


def _document(body: bytes) -> list[str]:
    """Return what a document tells: nothing, if it was cut."""
    try:
        document = json.loads(body)
    except ValueError:
        return []
    error = document.get("error")
    if error is None:
        return [str(document.get("error_type", "done"))]
    return [_error_type(error)]


def _error_type(error: dict[str, Any]) -> str:
    return str(error["metadata"]["error_type"])

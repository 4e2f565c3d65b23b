"""`/v1/responses`: OpenAI's Responses API, which its newer SDKs and Codex speak.

https://platform.openai.com/docs/api-reference/responses-streaming, and OpenRouter's
"Responses API". Upstream keeps nothing: `previous_response_id` gets its 400.
"""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import Struct

from trio_ai_stream.dialects.completions import DONE, error_object, openai_error
from trio_ai_stream.dialects.named_events import (
    UNNAMED,
    NamedEventEncoder,
    event,
    event_reader,
    note_failure,
)
from trio_ai_stream.dialects.refusals import OPENROUTER_FIELDS
from trio_ai_stream.upstream.chunks import (
    as_utf8,
    identity_of,
    items_of_failed,
    object_of,
)
from trio_ai_stream.upstream.upstream_errors import failure_of
from trio_ai_stream.wire.dialect import HEARTBEAT, Dialect
from trio_ai_stream.wire.events import (
    Answer,
    Done,
    Failure,
    Finish,
    Identity,
    Item,
    Progress,
    Raw,
    Reasoning,
    Usage,
)
from trio_ai_stream.wire.model_requests import ResponsesRequest, request_parser
from trio_ai_stream.wire.problems import Problem
from trio_ai_stream.wire.record import plain_word

_PROGRESS: Final = Progress()
_TEXTS: Final = {"response.output_text.delta", "response.refusal.delta"}
_NUMBER: Final = re.compile(rb'"sequence_number":\s*([0-9]{1,15})')
# Behind one of these no event follows.
_ENDS: Final = {
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.cancelled",
}
_FAILED: Final = {"failed", "cancelled"}
_CANCELLED: Final = {"code": "server_error", "message": "upstream cancelled the answer"}


class _ResponseState(Struct, gc=False):
    id: str | None = None
    provider: str | None = None
    status: str | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    incomplete_details: Any = None


class _ResponseEvent(Struct, gc=False):
    type: str = ""
    delta: str | None = None  # `Any` costs a third more
    response: _ResponseState | None = None
    error: Any = None


def _say(said: _ResponseEvent, items: list[Item]) -> None:
    kind = said.type
    if kind in _TEXTS:
        if said.delta:
            items.append(said.delta)
    elif kind.endswith(".delta"):
        thought = said.delta if "reasoning" in kind else None
        items.append(Reasoning(thought) if thought else _PROGRESS)
    elif "_call." in kind:  # a tool at work, which the model has called
        items.append(_PROGRESS)
    elif kind == "response.created" and said.response is not None:
        if said.response.id:
            items.append(Identity(said.response.id, said.response.provider))
    elif kind in _ENDS:
        items += _ending(
            kind.removeprefix("response."), said.response or _ResponseState()
        )
        items.append(Done(ends=False))
    elif kind in UNNAMED or said.error:
        note_failure(items)


def _ending(status: str, response: _ResponseState) -> list[Item]:
    """Return what the last event says; a failure stands in the event itself."""
    items: list[Item] = []
    if response.usage:
        items.append(Usage(response.usage, final=True))
    if status in _FAILED:
        failure = failure_of(response.error or _CANCELLED)
        return [*items, Failure(failure.problem, failure.detail, told=True)]
    details = response.incomplete_details
    reason = details.get("reason") if isinstance(details, dict) else None
    return [*items, Finish(str(reason or status))]


def read_response(body: bytes) -> list[Item]:
    """Return what a whole response says, its bytes first.

    :raises ValueError: when it is neither a response nor an error.
    """
    document = object_of(body)
    status = _status_of(document)
    if status in _FAILED and not document.get("error"):
        document["error"] = _CANCELLED
    if failed := items_of_failed(document):
        return failed
    output = document.get("output")
    if document.get("object") != "response" or not isinstance(output, list):
        raise ValueError("expected a response")
    items: list[Item] = [Raw(as_utf8(body)), *identity_of(document)]
    for one in output:
        items += _output(one if isinstance(one, dict) else {})
    usage, details = document.get("usage"), document.get("incomplete_details")
    usage = usage if isinstance(usage, dict) else None
    end = _ResponseState(usage=usage, incomplete_details=details)
    return [*items, *_ending(status, end), Done()]


def _status_of(document: dict[str, Any]) -> str:
    """Return how a whole response ended; one that does not say is complete."""
    status = document.get("status")
    return (plain_word(status) if isinstance(status, str) else None) or "completed"


def _output(item: dict[str, Any]) -> list[Item]:
    parts = item.get("content")
    texts = [
        part["text"]
        for part in (parts if isinstance(parts, list) else [])
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    ]
    if item.get("type") == "reasoning":
        return [Reasoning("".join(texts))]
    return ["".join(texts)] if any(texts) else [_PROGRESS]


def _as_stream(response: dict[str, Any]) -> list[bytes]:
    """Return a whole response as the last event of a stream, which holds all of it."""
    kind = f"response.{_status_of(response)}"
    whole = event({"type": kind, "sequence_number": 0, "response": response})
    return [whole.removesuffix(b"\n\n")]


class ResponseEncoder(NamedEventEncoder):
    """Writes one stream of a response's events; `[DONE]` ends it, as OpenRouter's."""

    __slots__ = ()
    end_mark = DONE

    def heartbeat(self) -> bytes:
        """Return `keepalive`; before the first event a comment, unless events are due.

        OpenAI's SDKs take the first event for `response.created`, and pass over what
        they do not know after it. The number is the last event's: ours is none of the
        answer's.
        """
        if not (self._last or self._event_heartbeats):
            return HEARTBEAT
        return event({"type": "keepalive", "sequence_number": self._number()})

    def error(self, problem: Problem, _answer: Answer) -> bytes:
        """Return `error`.

        What it says stands in it twice: OpenAI's SDKs raise what is in `error`, its API
        reference has the fields beside `type`.
        """
        fields: dict[str, Any] = {
            "code": problem.error_type,
            "message": problem.message,
            "param": problem.field,
        }
        return event(
            {
                "type": "error",
                "sequence_number": self._number() + 1 if self._last else 0,
                **fields,
                "error": {**error_object(problem), **fields},
            }
        )

    def _number(self) -> int:
        found = _NUMBER.findall(self._last)
        return int(found[-1]) if found else 0


RESPONSES: Final = Dialect(
    path="/v1/responses",
    upstream_path="/responses",
    raw=True,
    whole_events=True,
    forwarded=OPENROUTER_FIELDS,
    parse=request_parser(ResponsesRequest),
    read_events=event_reader(_ResponseEvent, _say),
    read_document=read_response,
    as_stream=_as_stream,
    encoder=ResponseEncoder,
    error=openai_error,
)

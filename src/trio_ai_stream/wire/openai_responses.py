"""Chunks, models and errors as OpenAI's and OpenRouter's clients read them; pure.

Errors: both read `error.message`. OpenAI's SDKs read `type` and `param` besides;
OpenRouter's take nothing without an integer `code`, and in a stream nothing that is no
whole chunk (`openrouter` 1.3.84, `components/chatstreamchunk.py`). OpenRouter names its
errors in `metadata.error_type`, so ours are named there.

The status is the one that upstream gave, because clients act on it, with one exception:
upstream's 401 is about this server's key, and a client that saw it would take its own
key for bad. It is told 502, and not to retry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Struct

from trio_ai_stream.wire.events import Item, Raw
from trio_ai_stream.wire.problems import Problem


class ModelDocument(Struct, frozen=True):
    """One model; upstream's further fields are passed on."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelListDocument(Struct, frozen=True):
    """All models that upstream lists."""

    object: str
    data: list[ModelDocument]


class _Entry(Struct):
    id: str
    created: int = 0


class _Entries(Struct):
    data: list[dict[str, Any]]


_further = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class ModelList:
    """The models by id, and the document that lists them."""

    models: dict[str, dict[str, Any]]
    document: bytes


_decoder = msgspec.json.Decoder(_Entries)


def model_list(body: bytes) -> ModelList:
    """Read upstream's `GET /models` and give it OpenAI's shape.

    :raises ValueError: when it is no list of models.
    """
    models: dict[str, dict[str, Any]] = {}
    for fields in _decoder.decode(body).data:
        entry = msgspec.convert(fields, _Entry)
        owner = entry.id.lstrip("~").partition("/")[0]
        shape = ModelDocument(entry.id, "model", entry.created, owner)
        models[entry.id] = {**msgspec.to_builtins(shape), **fields, "object": "model"}
    further = _further.decode(body)
    document = {**further, "object": "list", "data": list(models.values())}
    return ModelList(models, msgspec.json.encode(document))


DONE: Final = b"data: [DONE]\n\n"


def frames(items: Iterable[Item]) -> tuple[bytes, int]:
    """Return the frames of all chunks in `items`, joined, and their number.

    What the items say besides was for the relay; a comment is dropped.
    """
    payloads = [item.payload for item in items if type(item) is Raw]
    if not payloads:
        return b"", 0
    joined = b"\n\ndata: ".join(payloads)
    if any(b"\n" in payload for payload in payloads):
        # JSON may be laid out over several lines, and then each is a field of its own.
        joined = b"\n\ndata: ".join(p.replace(b"\n", b"\ndata: ") for p in payloads)
    return b"data: " + joined + b"\n\n", len(payloads)


_TYPES: Final[dict[int, str]] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    499: "cancelled",
}


def status_of(problem: Problem) -> int:
    """Return the HTTP status of a problem: upstream's own, if upstream refused."""
    upstream = problem.upstream_status
    return problem.status if upstream in {None, 401} else upstream or problem.status


def error_body(problem: Problem) -> bytes:
    """Return the JSON body of a refusal."""
    return msgspec.json.encode({"error": _error(problem)})


def error_chunk(problem: Problem, *, chunk_id: str, model: str, created: int) -> bytes:
    """Return the last event of a stream that failed; `created` in Unix seconds."""
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    chunk = {
        "id": chunk_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [choice],
        "error": _error(problem),
    }
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def error_headers(problem: Problem) -> list[tuple[str, str]]:
    """Return what tells a client whether and when to try again.

    OpenAI's SDKs retry by status unless `x-should-retry` says otherwise (`openai`
    3.54, `_base_client.py`). After tries of our own it says that they should not: three
    of theirs for each three of ours would be nine.
    """
    again = problem.retryable and not problem.spent
    headers = [("X-Should-Retry", "true" if again else "false")]
    if (retry_after := problem.retry_after_header) is not None:
        headers.append(("Retry-After", retry_after))
    return headers


def _error(problem: Problem) -> dict[str, Any]:
    status = status_of(problem)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "message": problem.message,
        "code": status,
        "type": _TYPES.get(status, kind),
        "param": problem.field,
        "metadata": {"error_type": problem.error_type},
    }

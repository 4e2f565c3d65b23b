"""Errors as OpenAI's and OpenRouter's clients read them, before or in a stream.

Both read `error.message`. OpenAI's SDKs read `type` and `param` besides; OpenRouter's
take nothing without an integer `code`, and in a stream nothing that is no whole chunk
(`openrouter` 1.3.84, `components/chatstreamchunk.py`). `metadata.error_type` is where
OpenRouter names its errors, so ours are named there.

The status is the one that upstream gave, because clients act on it, with one exception:
upstream's 401 is about this server's key, and a client that saw it would take its own
key for bad. It is told 502, and not to retry.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from trio_ai_stream.wire.problems import Problem

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

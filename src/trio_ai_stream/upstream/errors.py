"""Upstream's errors and httpx's, each translated once, from a table; pure.

Upstream's own text reaches a client only for a 4xx that is meant for the caller: its
401 and 402 are about our key, its 5xx and 429 about providers the caller never chose
(https://openrouter.ai/docs/api_reference/errors-and-debugging).
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any, Final

import httpx

from trio_ai_stream.stream.outcome import EndStream, Outcome
from trio_ai_stream.wire.events import Failure
from trio_ai_stream.wire.problems import Fault, Problem

MAX_TEXT: Final = 300
# A longer Retry-After, `1e999` for one, is a mistake; it could not be written out.
MAX_SECONDS: Final = 1e7


@dataclass(frozen=True, slots=True)
class _Row:
    """How one status of upstream's is told to our client."""

    status: int
    error_type: str
    message: str
    fault: Fault
    retryable: bool = False
    quote: bool = False


def _caller(status: int, error_type: str, message: str) -> _Row:
    return _Row(status, error_type, message, Fault.CALLER, quote=True)


def _upstream(status: int, error_type: str, message: str) -> _Row:
    return _Row(status, error_type, message, Fault.UPSTREAM, retryable=True)


def _ours(error_type: str, message: str) -> _Row:
    return _Row(502, error_type, message, Fault.SERVER)


TABLE: Final[dict[int, _Row]] = {
    400: _caller(400, "invalid_request", "upstream found the request invalid"),
    401: _ours("upstream_authentication", "upstream does not accept this server's key"),
    402: _ours("upstream_payment_required", "this server's credits are used up"),
    403: _caller(403, "permission_denied", "upstream does not permit this request"),
    404: _caller(404, "not_found", "upstream has no such model"),
    408: _upstream(504, "upstream_timeout", "upstream timed out"),
    412: _caller(412, "precondition_failed", "a precondition failed upstream"),
    413: _caller(413, "payload_too_large", "the request is too large for upstream"),
    422: _caller(422, "unprocessable", "upstream cannot process this request"),
    429: _upstream(
        429, "upstream_rate_limited", "upstream limits the rate of requests"
    ),
    500: _Row(502, "upstream_error", "upstream made a mistake", Fault.UPSTREAM),
    502: _upstream(502, "upstream_unavailable", "the model's provider failed"),
    503: _upstream(503, "upstream_overloaded", "upstream is overloaded"),
    504: _upstream(504, "upstream_timeout", "upstream timed out"),
    524: _upstream(504, "upstream_timeout", "upstream timed out"),
    529: _upstream(503, "upstream_overloaded", "the model's provider is overloaded"),
}
_WORDS: Final[dict[str, int]] = {
    "authentication": 401,
    "payment_required": 402,
    "permission_denied": 403,
    "not_found": 404,
    "rate_limit_exceeded": 429,
    "server": 500,
    "server_error": 500,
    "provider_unavailable": 502,
    "provider_overloaded": 503,
    "timeout": 504,
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "max_tokens_exceeded": 400,
    "content_policy_violation": 400,
}


def row_of(status: int) -> _Row:
    """Return the row of a status; one that the table lacks goes by its class."""
    if row := TABLE.get(status):
        return row
    return TABLE[400] if 400 <= status < 500 else TABLE[500]


def failure_of(error: Any) -> Failure:
    """Read an `error` object of any of the shapes that are documented or reported.

    `code` is a number or a word; `error_type` and `retry_after` stand at one of two
    levels; `availability.retryable` overrules the table.
    """
    fields = error if isinstance(error, dict) else {"message": str(error)}
    metadata, availability = (
        _dict(fields.get("metadata")),
        _dict(fields.get("availability")),
    )
    word = metadata.get("error_type", fields.get("error_type"))
    code = fields.get("code", fields.get("http_status"))
    status = _status(code, word)
    row = row_of(status)
    retryable = availability.get("retryable", row.retryable)
    problem = Problem(
        row.status,
        row.error_type,
        _quoted(fields.get("message"), row),
        row.fault,
        retryable=retryable is True,
        retry_after=_seconds(
            availability.get("retry_after", metadata.get("retry_after"))
        ),
        upstream_status=status,
    )
    return Failure(problem, f"upstream error {status} {_identifier(word)}".rstrip())


def rejection(status: int, body: bytes | None, retry_after: str | None) -> EndStream:
    """Return what a 4xx or 5xx answer of upstream means; `body` may be its error."""
    error = _error_object(body)
    error["code"] = status
    failure = failure_of(error)
    problem = failure.problem
    seconds = problem.retry_after
    header = (retry_after or "").strip()
    if seconds is None and header.isascii() and header.isdigit():
        seconds = _seconds(int(header[:20]))
    problem = dataclasses.replace(problem, retry_after=seconds)
    return EndStream(Outcome.UPSTREAM_REJECTED, problem=problem, detail=failure.detail)


def failure_of_document(body: bytes | None) -> Failure:
    """Read an error that came as a whole JSON document under status 200."""
    return failure_of(_error_object(body))


def transport_error(exc: httpx.HTTPError) -> EndStream:
    """Return what a failure of the connection means; its class says how far it got."""
    name = type(exc).__name__
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
        return EndStream(Outcome.UPSTREAM_UNREACHABLE, problem=UNREACHABLE, detail=name)
    return EndStream(Outcome.UPSTREAM_FAILED, problem=BROKEN, detail=name)


UNREACHABLE: Final = Problem(
    502,
    "upstream_unreachable",
    "upstream could not be reached",
    Fault.UPSTREAM,
    retryable=True,
)
BROKEN: Final = Problem(
    502,
    "upstream_failed",
    "the connection to upstream broke",
    Fault.UPSTREAM,
    retryable=True,
)
MALFORMED: Final = Problem(
    502,
    "upstream_failed",
    "upstream sent something that is no chat stream",
    Fault.UPSTREAM,
)


def _status(code: object, word: object) -> int:
    for value in (code, word):
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and 400 <= value < 600
        ):
            return value
        if isinstance(value, str) and value in _WORDS:
            return _WORDS[value]
        if isinstance(value, str) and re.fullmatch("[45][0-9][0-9]", value):
            return int(value)
    return 502


def _quoted(message: object, row: _Row) -> str:
    if not row.quote or not isinstance(message, str) or not message.isprintable():
        return row.message
    if len(message) > MAX_TEXT:
        message = message[:MAX_TEXT].rpartition(" ")[0] or message[:MAX_TEXT]
        message += " …"
    return f"{row.message}: {message}"


def _identifier(word: object) -> str:
    """Let only a plain word into the log: upstream's free text may quote the prompt."""
    ok = isinstance(word, str) and re.fullmatch("[a-z_]{1,40}", word)
    return str(word) if ok else ""


def _seconds(value: object) -> float | None:
    """Read a time to wait; one past `MAX_SECONDS` is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < MAX_SECONDS else None


def _error_object(body: bytes | None) -> dict[str, Any]:
    try:
        return dict(_dict(_dict(json.loads(body or b"{}")).get("error")))
    except (ValueError, RecursionError):
        return {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

"""Upstream's errors and httpx's, each translated once, from a table.

Upstream's own text reaches a client only for a 4xx that is meant for the caller: its
401 and 402 are about our key, its 5xx and 429 about providers the caller never chose
(https://openrouter.ai/docs/api_reference/errors-and-debugging).

Which errors allow that we send the request again is decided here, and nowhere else: see
`Problem.resend`. What upstream may have worked on is not sent twice.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from trio_ai_stream.stream.outcome import EndStream, Outcome
from trio_ai_stream.upstream.reasons import document_of, reason_in
from trio_ai_stream.upstream.transport.causes import cause_of, describe
from trio_ai_stream.upstream.transport.circuit import CircuitOpenError
from trio_ai_stream.upstream.waiting import wait_told
from trio_ai_stream.wire.events import Failure
from trio_ai_stream.wire.problems import Fault, Problem


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
    # What Cloudflare says of the servers behind it (its error codes 520 to 530).
    **{
        status: _upstream(502, "upstream_unavailable", "upstream is not available")
        for status in range(520, 531)
    },
    524: _upstream(504, "upstream_timeout", "upstream timed out"),
    529: _upstream(503, "upstream_overloaded", "the model's provider is overloaded"),
}
# They refuse a request before any work on it, so it may be sent again; the latter two
# also follow work that failed, so upstream must permit it: by a time to wait, or by
# `availability.retryable`.
_REFUSALS: Final = frozenset({429})
_REFUSALS_IF_PERMITTED: Final = frozenset({503, 529})

PROVIDER_KEY: Final = _ours(
    "provider_authentication", "the model's provider does not accept its key"
)
KEY_TYPE: Final = TABLE[401].error_type
# What nginx, Go's server and Apache say to plain HTTP on a port of TLS.
_WANTS_TLS: Final = re.compile(
    rb"HTTP request (was sent )?to (an )?HTTPS|plain HTTP to an SSL"
)
# With these nothing of the request has been read by upstream.
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
_AFFORD: Final = re.compile(r"can only afford ([0-9]{1,9})\b")
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


def failure_of(
    error: Any, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Failure:
    """Read an `error` of any of the shapes that are documented or reported.

    `code` is a number or a word; `error_type` and `retry_after` stand at one of several
    levels; `availability.retryable` overrules the table. `status` and `headers` are
    those of the answer whose body it is, if it is one.
    """
    fields = error if isinstance(error, dict) else {"message": error}
    metadata, availability = (
        _dict(fields.get("metadata")),
        _dict(fields.get("availability")),
    )
    word = metadata.get("error_type", fields.get("error_type"))
    code = fields.get("code", fields.get("http_status"))
    status = status or _status(code, word)
    row = row_of(status)
    if status == 401 and (metadata.get("provider_name") or metadata.get("is_byok")):
        row = PROVIDER_KEY
    reason = reason_in(fields)
    if status == 402 and (afford := _AFFORD.search(reason)):
        row = _caller(402, row.error_type, "this server's credits do not allow as many")
        reason = f"at most {afford[1]} tokens can be afforded; ask for fewer max_tokens"
    wait = wait_told(fields, headers or {}, now=time.time())
    permission = availability.get("retryable")
    retryable = row.retryable if permission is None else permission is True
    refused = status in _REFUSALS or (
        status in _REFUSALS_IF_PERMITTED and (permission is True or wait is not None)
    )
    problem = Problem(
        row.status,
        row.error_type,
        f"{row.message}: {reason}" if row.quote and reason else row.message,
        row.fault,
        retryable=retryable,
        retry_after=None if wait == math.inf else wait,
        upstream_status=status,
        resend=retryable and refused and wait != math.inf,
    )
    return Failure(problem, f"upstream error {status} {_identifier(word)}".rstrip())


def rejection(
    status: int, body: bytes, headers: Mapping[str, str], *, url: str = ""
) -> EndStream:
    """Return what an answer with another status than 200 means.

    `body` is the beginning of its body; `headers` have lower-case names. `url` is what
    was asked, for the log.
    """
    document = document_of(body, headers.get("content-encoding", ""))
    if status == 400 and _WANTS_TLS.search(body):
        return misplaced("400, because the port speaks TLS (https://)", url)
    if 300 <= status < 400:
        place = headers.get("location", "")
        return misplaced(f"{status}, a redirect to {_plain_url(place)}", url)
    if status in {404, 405} and "json" not in headers.get("content-type", "").lower():
        return misplaced(f"{status} with a body that is no JSON", url)
    if not 400 <= status < 600:
        detail = f"status {status}"
        return EndStream(Outcome.UPSTREAM_REJECTED, problem=NO_ANSWER, detail=detail)
    document = document or {}
    error = document.get("error")
    failure = failure_of(
        error if isinstance(error, dict | str) and error else document,
        status=status,
        headers=headers,
    )
    return EndStream(
        Outcome.UPSTREAM_REJECTED, problem=failure.problem, detail=failure.detail
    )


def misplaced(got: str, url: str) -> EndStream:
    """Return that no such API answers at `url`; `got` is what came instead."""
    return EndStream(
        Outcome.UPSTREAM_REJECTED,
        problem=MISPLACED,
        detail=f"expected OpenRouter's API at {_plain_url(url)}, got {got};"
        " check OPENROUTER_BASE_URL",
    )


def transport_error(exc: httpx.HTTPError) -> EndStream:
    """Return what a failure of the connection means; its class says how far it got."""
    cause, detail = cause_of(exc), describe(exc)
    if not isinstance(exc, _NOT_SENT):
        problem = MALFORMED if isinstance(exc, httpx.DecodingError) else BROKEN
        return EndStream(Outcome.UPSTREAM_FAILED, problem=problem, detail=detail)
    problem = UNREACHABLE
    if cause.ours:
        problem = OUT_OF_RESOURCES
    elif not cause.heals:
        problem = dataclasses.replace(problem, retryable=False, resend=False)
    elif (wait_s := _circuit_wait(exc)) is not None:
        problem = dataclasses.replace(problem, retry_after=wait_s)
    return EndStream(Outcome.UPSTREAM_UNREACHABLE, problem=problem, detail=detail)


def _circuit_wait(exc: BaseException) -> float | None:
    """Return when dials are made again, if there was none."""
    cause = exc.__cause__
    return cause.wait_s if isinstance(cause, CircuitOpenError) else None


UNREACHABLE: Final = Problem(
    502,
    "upstream_unreachable",
    "upstream could not be reached",
    Fault.UPSTREAM,
    retryable=True,
    resend=True,
)
OUT_OF_RESOURCES: Final = Problem(
    503,
    "server_overloaded",
    "the server has no room for another connection to upstream; try again later",
    Fault.SERVER,
    retryable=True,
    retry_after=1.0,
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
MISPLACED: Final = Problem(
    502,
    "upstream_misconfigured",
    "what answers is not the API that was expected;"
    " the server's OPENROUTER_BASE_URL seems to be wrong",
    Fault.SERVER,
)
NO_ANSWER: Final = Problem(
    502,
    "upstream_failed",
    "upstream answered with a status that is neither an answer nor an error",
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


def _identifier(word: object) -> str:
    """Let only a plain word into the log: upstream's free text may quote the prompt."""
    ok = isinstance(word, str) and re.fullmatch("[a-z_]{1,40}", word)
    return str(word) if ok else ""


def _plain_url(url: str) -> str:
    """Return a URL for the log: without query, where a secret could be, and bounded."""
    plain = re.sub(r"//[^/@]*@", "//", url.partition("?")[0])[:200]
    return plain if plain.isprintable() and plain else "another place"


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

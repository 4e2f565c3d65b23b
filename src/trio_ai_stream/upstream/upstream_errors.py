"""Upstream's errors and httpx's, each translated once, from a table.

Upstream's own text reaches a client only for a 4xx that is meant for the caller: its
401 and 402 are about our key, its 5xx and 429 about providers the caller never chose
(https://openrouter.ai/docs/api_reference/errors-and-debugging). It may quote the
prompt, so it never reaches the log.

Which errors allow that we send the request again is decided here, and nowhere else: see
`Problem.resend`. What upstream may have worked on is not sent twice.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.upstream.content_codings import DAMAGED, decompressor_of
from trio_ai_stream.upstream.transport.circuit import CircuitOpenError
from trio_ai_stream.upstream.transport.transport_errors import cause_of, describe
from trio_ai_stream.wire.events import Failure
from trio_ai_stream.wire.problems import Fault, Problem
from trio_ai_stream.wire.record import Outcome


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
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout)
_PLAIN_WORD: Final = re.compile("[a-z_]{1,40}")
_AFFORD: Final = re.compile(r"can only afford ([0-9]{1,9})\b")
_WORDS: Final[dict[str, int]] = {
    "authentication": 401,
    "payment_required": 402,
    "permission_denied": 403,
    "not_found": 404,
    "rate_limit_exceeded": 429,
    **dict.fromkeys(("server", "server_error", "unmapped"), 500),
    "provider_unavailable": 502,
    "provider_overloaded": 503,
    "timeout": 504,
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "max_tokens_exceeded": 400,
    "content_policy_violation": 400,
    "invalid_prompt": 400,
    "token_limit_exceeded": 400,
    "string_too_long": 400,
    "refusal": 400,
    "precondition_failed": 412,
    "payload_too_large": 413,
    "unprocessable": 422,
    "insufficient_quota": 402,  # OpenAI's
    # Anthropic's.
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def row_of(status: int) -> _Row:
    """Return the row of a status; one that the table lacks goes by its class."""
    if row := TABLE.get(status):
        return row
    if 400 <= status < 500:
        return dataclasses.replace(TABLE[400], status=status)
    return TABLE[500]


def failure_of(
    error: Any, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Failure:
    """Read an `error` of any of the shapes that are documented or reported.

    `code` is a number or a word; `error_type` and `retry_after` stand at one of several
    levels; `availability.retryable` overrules the table. `status` and `headers` are
    those of the answer whose body it is, if it is one.
    """
    fields = error if isinstance(error, dict) else {"message": error}
    metadata = _dict(fields.get("metadata"))
    # Anthropic has `type` alone, and OpenAI where `code` is null.
    words = [metadata.get("error_type"), fields.get("error_type"), fields.get("type")]
    word = next(filter(None, words), None)
    named = status or _status(fields.get("code"), fields.get("http_status"), *words)
    status = named or 502
    row = row_of(status)
    if status == 401 and (metadata.get("provider_name") or metadata.get("is_byok")):
        row = PROVIDER_KEY
    reason = reason_in(fields)
    if status == 402 and (afford := _AFFORD.search(reason)):
        row = _caller(402, row.error_type, "this server's credits do not allow as many")
        reason = f"at most {afford[1]} tokens can be afforded; ask for fewer max_tokens"
    # Without a status or a word for it, the text is all that the caller can go by.
    quote = row.quote or named is None
    wait = wait_told(fields, headers or {}, now=time.time())
    permission = _dict(fields.get("availability")).get("retryable")
    retryable = row.retryable if permission is None else permission is True
    refused = status in _REFUSALS or (
        status in _REFUSALS_IF_PERMITTED and (permission is True or wait is not None)
    )
    problem = Problem(
        row.status,
        row.error_type,
        f"{row.message}: {reason}" if quote and reason else row.message,
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
    document = document_of(body, headers.get("content-encoding", "")) or {}
    if status == 400 and _WANTS_TLS.search(body):
        return misplaced("400, because the port speaks TLS (https://)", url)
    if 300 <= status < 400:
        place = headers.get("location", "")
        return misplaced(f"{status}, a redirect to {_plain_url(place)}", url)
    labelled = "json" in headers.get("content-type", "").lower()
    if status in {404, 405} and not labelled and "error" not in document:
        return misplaced(f"{status} with a body that is no JSON", url)
    if not 400 <= status < 600:
        detail = f"status {status}"
        return EndStream(Outcome.UPSTREAM_REJECTED, problem=NO_ANSWER, detail=detail)
    error = document.get("error")
    said = error if isinstance(error, dict | str) and error else document
    failure = failure_of(said, status=status, headers=headers)
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
    elif isinstance(exc.__cause__, CircuitOpenError):
        # A wait of ours would hold the stream's permit, and end in another refusal.
        wait_s = exc.__cause__.wait_s
        problem = dataclasses.replace(problem, retry_after=wait_s, resend=False)
    return EndStream(Outcome.UPSTREAM_UNREACHABLE, problem=problem, detail=detail)


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


def _status(*said: object) -> int | None:
    for value in said:
        if type(value) is int and 400 <= value < 600:
            return value
        if isinstance(value, str) and value in _WORDS:
            return _WORDS[value]
        if isinstance(value, str) and re.fullmatch("[45][0-9][0-9]", value):
            return int(value)
    return None


def _identifier(word: object) -> str:
    """Let only a plain word into the log: upstream's free text may quote the prompt."""
    return word if isinstance(word, str) and _PLAIN_WORD.fullmatch(word) else ""


def _plain_url(url: str) -> str:
    """Return a URL for the log: without query, where a secret could be, and bounded."""
    plain = re.sub(r"//[^/@]*@", "//", url.partition("?")[0])[:200]
    return plain if plain.isprintable() and plain else "another place"


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


MAX_TEXT: Final = 300
_MESSAGE: Final = re.compile(r'"(?:message|detail)"\s*:\s*"((?:[^"\\]|\\.)*)')
_TEXTS: Final = ("message", "msg", "error_message", "error", "detail")
# They join the parts of an emoji, and letters in Persian and Hindi.
_JOINERS: Final = "\u200c\u200d"
_DEPTH: Final = 6


def clean(text: str) -> str:
    """Return `text` in one line, without control characters, cut between two words."""
    line = " ".join(text[: 8 * MAX_TEXT].split())
    kept = "".join(c for c in line if c.isprintable() or c in _JOINERS)
    if len(kept) <= MAX_TEXT:
        return kept
    kept = kept[:MAX_TEXT]
    return f"{kept.rpartition(' ')[0] or kept} …"


def reason_in(value: Any, depth: int = _DEPTH) -> str:
    """Return the text that says what is wrong; empty if there is none.

    A provider's own words, in `metadata.raw`, stand behind OpenRouter's, which often
    are no more than that the provider returned an error.
    """
    if depth == 0:
        return ""
    if isinstance(value, str):
        if value.lstrip()[:1] == "<":  # a web page
            return ""
        nested = _json(value) if value.lstrip()[:1] in {"{", "["} else None
        return (nested is not None and reason_in(nested, depth - 1)) or clean(value)
    if isinstance(value, list):
        found = [reason_in(item, depth - 1) for item in value[:3]]
        return clean("; ".join(text for text in found if text))
    if not isinstance(value, dict):
        return ""
    texts = (reason_in(value.get(name), depth - 1) for name in _TEXTS)
    said = next((text for text in texts if text), "")
    provider = reason_in(_dict(value.get("metadata")).get("raw"), depth - 1)
    if provider and provider not in said:
        said = f"{said}: {provider}" if said else provider
    place = value.get("path", value.get("loc"))
    if said and isinstance(place, list) and place:
        said = f"{'.'.join(str(step) for step in place[:8])}: {said}"
    return clean(said)


def document_of(body: bytes, encoding: str = "") -> dict[str, Any] | None:
    """Return the error's body as an object; None if it is a web page, or nothing.

    `body` may be the beginning of a longer one, and compressed as `encoding` says.
    """
    text = _decoded(body, encoding).decode("utf-8", "replace")
    document = _json(text)
    if isinstance(document, dict):
        return document
    if found := _MESSAGE.search(text):
        return {"message": _json(f'"{found[1]}"') or found[1]}
    text = "" if "\ufffd" in text else text.strip()
    return {"message": text} if text and text[0] not in "<{" else None


def _decoded(body: bytes, encoding: str) -> bytes:
    """Return a block of it: a reason stands at the beginning."""
    try:
        return decompressor_of(encoding).feed(body)
    except LookupError:  # it is not compressed, or it is not known how
        return body
    except DAMAGED:
        return b""


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# A longer time, `1e999` for one, is a mistake; it could not be written out.
MAX_SECONDS: Final = 1e7
_NUMBER: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_IN_BODY: Final = ("retry_after", "retry_after_seconds")
# From here on a number counts milliseconds since 1970, as OpenRouter's does.
_EPOCH_MS: Final = 1e11


def wait_told(
    error: Mapping[str, Any], headers: Mapping[str, str], *, now: float
) -> float | None:
    """Return how many seconds to wait; None if upstream does not say.

    Infinity if it says so in a way that can't be read: whoever wants to send again does
    not know when. `headers` have lower-case names; `now` is in seconds since 1970.
    """
    metadata = _dict(error.get("metadata"))
    headers_told = _dict(metadata.get("headers"))
    provided = {str(name).lower(): value for name, value in headers_told.items()}
    places = (_dict(error.get("availability")), metadata, error)
    said = [place.get(name) for place in places for name in _IN_BODY]
    said += [headers.get("retry-after"), provided.get("retry-after")]
    for value in said:
        if value is not None:
            return _seconds(value, now, headers.get("date", ""))
    for fields in (provided, headers):
        if (value := fields.get("x-ratelimit-reset")) is not None:
            return _until(value, now)
    return None


def _seconds(value: object, now: float, sent_at: str) -> float:
    """Read seconds, as a number or as digits, or a date (RFC 9110 section 10.2.3).

    A date that is past here, but not when the answer was sent, is one of another clock.
    """
    number = _number(value)
    if number is None and isinstance(value, str) and (at := _date(value)) is not None:
        sent = _date(sent_at)
        number = max(0.0, at - now if at > now or sent is None else at - sent)
    return number if number is not None and 0 <= number < MAX_SECONDS else math.inf


def _until(value: object, now: float) -> float:
    """Read seconds that are left, or a time since 1970 in seconds or milliseconds."""
    number = _number(value)
    if number is None:
        return math.inf
    if number < MAX_SECONDS:
        return number
    wait = (number / 1000 if number >= _EPOCH_MS else number) - now
    return max(0.0, wait) if wait < MAX_SECONDS else math.inf


def _number(value: object) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < MAX_SECONDS * 1e9 else None
    return None


def _date(value: str) -> float | None:
    try:
        date = parsedate_to_datetime(value)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return date.timestamp()
    except (ValueError, OverflowError):
        return None

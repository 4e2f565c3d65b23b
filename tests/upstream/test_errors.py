"""What upstream's errors are told as: statuses, reasons, times to wait, new tries."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from email.utils import formatdate
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest

from trio_ai_stream.dialects.refusals import error_headers
from trio_ai_stream.upstream.upstream_errors import (
    MAX_TEXT,
    document_of,
    failure_of,
    reason_in,
    rejection,
    wait_told,
)
from trio_ai_stream.wire.problems import Fault, Problem
from trio_ai_stream.wire.record import Outcome

NOW = 1_800_000_000.0
JSON = {"content-type": "application/json"}


def problem_of(
    status: int, error: Any, headers: dict[str, str] | None = None
) -> Problem:
    """What is told of an answer with this status and this error object."""
    body = json.dumps({"error": error}).encode()
    problem = rejection(status, body, {**JSON, **(headers or {})}).problem
    assert problem is not None
    return problem


WAITS: list[tuple[dict[str, Any], dict[str, str], float | None]] = [
    ({}, {}, None),
    ({}, {"retry-after": "7"}, 7),
    ({}, {"retry-after": " 7 "}, 7),
    ({}, {"retry-after": "0.25"}, 0.25),
    ({}, {"retry-after": formatdate(NOW + 40, usegmt=True)}, 40),
    ({}, {"retry-after": formatdate(NOW - 40, usegmt=True)}, 0),
    (
        {},
        {
            "retry-after": formatdate(NOW - 60, usegmt=True),
            "date": formatdate(NOW - 100, usegmt=True),
        },
        40,
    ),
    ({}, {"retry-after": "-7"}, math.inf),
    ({}, {"retry-after": "soon"}, math.inf),
    ({}, {"retry-after": "\u00b2"}, math.inf),  # a digit to Python, but no number
    ({}, {"retry-after": "1_0"}, math.inf),
    ({}, {"retry-after": "9" * 400}, math.inf),
    ({}, {"retry-after": "Wed, 99 Foo 99999 07:28:00 GMT"}, math.inf),
    ({"metadata": {"retry_after": 2.5}}, {"retry-after": "7"}, 2.5),
    ({"metadata": {"retry_after": "30"}}, {}, 30),
    ({"metadata": {"retry_after_seconds": 12}}, {}, 12),
    ({"retry_after_seconds": "12.5"}, {}, 12.5),
    ({"availability": {"retry_after": 40}}, {"retry-after": "7"}, 40),
    ({"metadata": {"retry_after": math.inf}}, {}, math.inf),
    ({"metadata": {"retry_after": math.nan}}, {}, math.inf),
    ({"metadata": {"retry_after": True}}, {}, math.inf),
    ({"metadata": {"retry_after": 10**400}}, {}, math.inf),
    ({"metadata": {"headers": {"Retry-After": "9"}}}, {}, 9),
    ({"metadata": {"headers": {"X-RateLimit-Reset": "1800007200000"}}}, {}, 7200),
    ({"metadata": {"headers": {"X-RateLimit-Reset": 1_800_007_200_000}}}, {}, 7200),
    ({}, {"x-ratelimit-reset": "1800000060"}, 60),
    ({}, {"x-ratelimit-reset": "30"}, 30),
    ({}, {"x-ratelimit-reset": "0"}, 0),
    ({}, {"x-ratelimit-reset": "1799999999"}, 0),
    ({"metadata": {"headers": {"X-RateLimit-Reset": "tomorrow"}}}, {}, math.inf),
    ({"metadata": "?", "availability": []}, {}, None),
]


@pytest.mark.parametrize(("error", "headers", "seconds"), WAITS)
def test_a_time_to_wait_is_read_in_each_of_its_shapes(
    error: dict[str, Any], headers: dict[str, str], seconds: float | None
) -> None:
    """Number, digits, fraction, date, reset time; what can't be read is no number."""
    assert wait_told(error, headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("header", "told", "again"),
    [("7", "7", True), ("0", "1", True), ("0.2", "1", True), ("soon", None, False)],
)
def test_a_time_to_wait_is_told_and_kept(
    header: str, told: str | None, again: bool
) -> None:
    """Who can't read when to send again does not send again."""
    problem = problem_of(429, {"message": "slow down"}, {"retry-after": header})
    assert problem.retry_after_header == told
    assert problem.resend is again


RESENT = [
    (429, {}, {}, True),
    (429, {"availability": {"retryable": False}}, {}, False),
    (503, {}, {}, False),
    (503, {}, {"retry-after": "1"}, True),
    (503, {"availability": {"retryable": True}}, {}, True),
    (529, {}, {"retry-after": "1"}, True),
    (502, {}, {"retry-after": "1"}, False),
    (408, {}, {}, False),
    (504, {}, {}, False),
    (524, {}, {}, False),
    (500, {}, {"retry-after": "1"}, False),
    (400, {}, {"retry-after": "1"}, False),
    (401, {}, {}, False),
    (307, {}, {"location": "https://example.net/"}, False),
    (204, {}, {}, False),
    (999, {}, {"retry-after": "1"}, False),
]


@pytest.mark.parametrize(("status", "error", "headers", "again"), RESENT)
def test_only_what_upstream_refused_is_sent_again(
    status: int, error: dict[str, Any], headers: dict[str, str], again: bool
) -> None:
    """429, and 503 or 529 with permission; any other answer may have cost work."""
    assert problem_of(status, error, headers).resend is again


@pytest.mark.parametrize("status", [520, 521, 522, 523, 524, 525, 526, 527, 530])
def test_cloudflares_own_errors_may_be_retried_by_the_client(status: int) -> None:
    """They pass; a web page is their body and is not quoted."""
    failure = rejection(status, b"<html>code 52x</html>", {"content-type": "text/html"})
    problem = failure.problem
    assert problem is not None
    assert problem.retryable
    assert ("X-Should-Retry", "true") in error_headers(problem)
    assert "<" not in problem.message


def test_a_client_is_not_told_to_retry_what_was_retried() -> None:
    """Three tries of a client's for each three of ours would be nine."""
    problem = Problem(503, "x", "x", retryable=True, spent=True)
    assert ("X-Should-Retry", "false") in error_headers(problem)


RAW = '{"error": {"type": "invalid", "message": "at most 1 image per prompt"}}'
ZOD = json.dumps([{"path": ["messages", 1], "message": "expected string"}], indent=2)
REASONS: list[tuple[Any, str]] = [
    ("text", "text"),
    ({"message": "model: no such one"}, "model: no such one"),
    ({"message": "one\r\n two\u00a0three\u2028four"}, "one two three four"),
    ({"message": "a\u200db\u202ec\x1b[0m"}, "a\u200dbc[0m"),
    ({"message": "half \ud83d"}, "half"),
    ({"message": "word " * 100}, "word " * 59 + "word …"),
    ({"message": "x" * 400}, "x" * MAX_TEXT + " …"),
    (
        {"message": "Provider returned error", "metadata": {"raw": RAW}},
        "Provider returned error: at most 1 image per prompt",
    ),
    ({"message": "no", "metadata": {"raw": {"message": "such"}}}, "no: such"),
    ({"message": "no", "metadata": {"raw": "<html>"}}, "no"),
    ({"message": "no", "metadata": {"raw": "no"}}, "no"),
    ({"metadata": {"raw": "plain words"}}, "plain words"),
    ({"name": "ZodError", "message": ZOD}, "messages.1: expected string"),
    (
        {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]},
        "body.messages: field required",
    ),
    ({"error_message": "odd"}, "odd"),
    ({"object": "error", "message": "too long", "code": 400}, "too long"),
    ({"message": {"message": {"message": {"message": {"message": {}}}}}}, ""),
    ({"message": 7}, ""),
    ({"message": "[" * 5000}, "[" * MAX_TEXT + " …"),
    (None, ""),
]


@pytest.mark.parametrize(("error", "reason"), REASONS)
def test_the_reason_is_found_cleaned_and_cut(error: Any, reason: str) -> None:
    """One line without control characters, the provider's own words included."""
    assert reason_in(error) == reason
    assert reason_in(json.loads(json.dumps(error))) == reason


# Without a time in them, which would give each worker of the tests other names.
PACKED = gzip.compress(b'{"error":{"message":"packed"}}', mtime=0)
BOMB = gzip.compress(b" " * 10_000_000 + b'{"message":"bomb"}', mtime=0)


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (b'{"error":{"message":"cut off', "", "cut off"),
        (
            b'{"error":{"x":[1,2],"message":"a \\"b\\" c","y":"' + b"z" * 999,
            "",
            'a "b" c',
        ),
        (PACKED, "gzip", "packed"),
        (
            gzip.compress(b'{"error":{"message":"packed"}}', mtime=0)[:-9],
            "GZIP",
            "packed",
        ),
        (zlib.compress(b'{"message":"packed"}'), "deflate", "packed"),
        (zlib.compress(b'{"message":"bare"}', wbits=-15), "deflate", "bare"),
        (b'{"message":"plain"}', "zstd", "plain"),
        (b"no gzip", "gzip", ""),
        (BOMB, "gzip", ""),
        (brotli.compress(b'{"error":{"message":"packed"}}'), "br", "packed"),
        (brotli.compress(b" " * 10_000_000 + b'{"message":"bomb"}'), "br", ""),
        (b"no brotli", "br", ""),
        (b"just words", "", "just words"),
        (b"\xff\xfe\x00", "", ""),
        (b"<!doctype html><p>words</p>", "", ""),
        (b"", "", ""),
    ],
)
def test_a_body_is_read_as_far_as_it_goes(
    body: bytes, encoding: str, reason: str
) -> None:
    """Cut, compressed, or plain text: what can be read is; a web page is no reason."""
    assert reason_in(document_of(body, encoding) or {}) == reason


def test_the_callers_mistake_is_told_in_mid_stream_too() -> None:
    """An error chunk under 200 goes by the same table as an answer's body."""
    problem = failure_of(
        {"code": 400, "message": "no", "metadata": {"raw": RAW}}
    ).problem
    assert "at most 1 image" in problem.message
    assert problem.fault is Fault.CALLER


def test_a_402_says_what_could_be_afforded() -> None:
    """Fewer tokens would do, so it is the caller's to mend; otherwise it is ours."""
    text = (
        "requires more credits. You requested 32000 tokens, but can only afford 27342."
    )
    problem = problem_of(402, {"message": text})
    assert "27342" in problem.message
    assert (problem.status, problem.fault) == (402, Fault.CALLER)
    problem = problem_of(402, {"message": "secret account is at $-3"})
    assert "secret" not in problem.message
    assert (problem.status, problem.fault) == (502, Fault.SERVER)


@pytest.mark.parametrize(
    "metadata", [{"provider_name": "Acme", "is_byok": True}, {"is_byok": True}]
)
def test_a_providers_401_is_not_about_our_key(metadata: dict[str, Any]) -> None:
    """It is told by another type, which does not make the server unready."""
    ours = problem_of(401, {"message": "No auth", "metadata": {"provider_name": None}})
    theirs = problem_of(401, {"message": "no", "metadata": metadata})
    assert ours.error_type == "upstream_authentication"
    assert theirs.error_type == "provider_authentication"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (301, {"location": "https://u:pw@example.net/v1?key=secret"}),
        (308, {}),
        (404, {"content-type": "text/html"}),
        (404, {}),
        (405, {"content-type": "text/plain"}),
    ],
)
def test_a_wrong_base_url_says_so(status: int, headers: dict[str, str]) -> None:
    """A redirect is not followed, a page that is not found is no unknown model."""
    url = "https://example.org/wrong/chat/completions"
    failure = rejection(status, b"<html>", headers, url=url)
    assert failure.problem is not None
    assert failure.problem.error_type == "upstream_misconfigured"
    assert (failure.problem.status, failure.problem.fault) == (502, Fault.SERVER)
    assert not failure.problem.retryable
    assert failure.outcome is Outcome.UPSTREAM_REJECTED
    assert url in failure.detail
    assert "OPENROUTER_BASE_URL" in failure.detail
    assert "secret" not in failure.detail
    assert "pw" not in failure.detail


def test_a_status_that_the_table_lacks_is_kept() -> None:
    """A 409 is told as one, with its reason."""
    problem = problem_of(409, {"message": "lock timeout"})
    assert (problem.status, problem.fault) == (409, Fault.CALLER)
    assert problem.message.endswith(": lock timeout")


@pytest.mark.parametrize("label", ["text/plain", "application/json"])
def test_an_api_that_labels_its_404_wrongly_is_understood(label: str) -> None:
    """A JSON object with an error in it is the API's, whatever its label."""
    body = b'{"error": {"code": 404, "message": "No such model: x/y"}}'
    failure = rejection(404, body, {"content-type": label}, url="https://example.org")
    assert failure.problem is not None
    assert failure.problem.error_type == "not_found"
    assert failure.problem.message.endswith(": No such model: x/y")


def test_an_unknown_model_is_the_callers_404() -> None:
    """A 404 of the API itself is JSON."""
    problem = problem_of(404, {"message": "No endpoints found that support tool use."})
    assert problem.status == 404
    assert "support tool use" in problem.message

"""How refusals are answered: which problem it is, and the headers it needs.

The shape of the body is the dialect's of the path (`Dialect.error`); for `/chat` it may
be one event of a stream.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Final

from loguru import logger
from quart import Quart, Response
from werkzeug.exceptions import HTTPException

from trio_ai_stream.dialects.catalogue import dialect_of
from trio_ai_stream.dialects.plain_chat import PLAIN_CHAT
from trio_ai_stream.http.endpoint import UNSUPPORTED_ENCODING
from trio_ai_stream.http.http_responses import json_response
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.wire.dialect import CONTENT_TYPE, ParsedRequest
from trio_ai_stream.wire.events import Answer
from trio_ai_stream.wire.problems import INTERNAL, Fault, Problem, Refused
from trio_ai_stream.wire.record import Outcome

# Paths that clients of the served APIs ask for, and what a 404 says there.
_UNSERVED: Final = (
    (
        re.compile(
            "(/api)?/v1/(completions|embeddings|images|audio|moderations|rerank|files"
            "|batches)(/|$)"
        ),
        "this server serves answers of chat models only: POST /v1/chat/completions,"
        " /v1/messages, /v1/responses or /chat, and GET /v1/models",
    ),
    (
        re.compile(
            "(/api)?/v1/(responses/.|messages/batches|conversations|assistants|threads)"
        ),
        "no answer is kept, neither here nor by OpenRouter: POST /v1/responses or"
        " /v1/messages with the whole conversation",
    ),
)
# RFC 6750 section 3; the error is named to who sent a key, as section 3.1 asks.
_CHALLENGE: Final = 'Bearer realm="trio-ai-stream"'
_BAD_TOKEN: Final = _CHALLENGE + ', error="invalid_token"'
# Error types by the reason that they are counted under; the others count as `other`.
REASONS: Final = {
    "too_many_requests": "rate_limit",
    "too_many_streams": "server_permits",
    "too_many_streams_of_client": "client_permits",
    "limits_unavailable": "gate_closed",
    "budget_exhausted": "budget",
    "shutting_down": "draining",
    "missing_api_key": "unauthorized",
    "invalid_api_key": "unauthorized",
    "loopback_only": "forbidden",
    "permission_denied": "forbidden",
    "invalid_request": "invalid_request",
    "unsupported_media_type": "invalid_request",
    "unsupported_content_encoding": "invalid_request",
    "payload_too_large": "too_large",
    "too_many_bodies": "too_many_bodies",
}


def register(
    app: Quart, respond: Callable[[Exception, RequestContext], Response]
) -> None:
    """Give every error its shape, Quart's own 404 and 405 included."""

    # A coroutine, because Quart runs a plain function in a thread.
    async def answer(exc: Exception) -> Response:
        return respond(exc, RequestContext.current())

    app.register_error_handler(HTTPException, answer)
    app.register_error_handler(Exception, answer)


def respond(
    exc: Exception,
    context: RequestContext,
    *,
    metrics: Metrics,
    paths: Collection[str],
) -> Response:
    """Return the answer to a request that failed before its response; count it.

    A path that leads nowhere is answered with the nearest of `paths`.
    """
    near = None
    if isinstance(exc, HTTPException):
        problem = _problem_of(exc)
        if problem.status == 404:
            message, near = _hint(context.path, paths)
            if message:
                problem = dataclasses.replace(problem, message=message)
    elif isinstance(exc, Refused):
        problem = exc.problem
    else:
        return _bug(exc, context)
    metrics.refused(REASONS.get(problem.error_type, "other"))
    response = render(problem, context, path=near)
    if isinstance(exc, HTTPException):
        for name, value in exc.get_headers():
            if name.lower() == "allow":
                response.headers[name] = value
    return response


def _hint(path: str, paths: Collection[str]) -> tuple[str, str | None]:
    """Return what to tell who asks for a path that leads nowhere, and the nearest."""
    for pattern, message in _UNSERVED:
        if pattern.match(path):
            return message, None
    near = nearest_path(path, paths)
    message = f"there is nothing at this path; did you mean {near}?" if near else ""
    return message, near


def nearest_path(path: str, paths: Collection[str]) -> str | None:
    """Return the path that was probably meant: without a base, with another, mistyped.

    Clients are given a base URL, and most mistakes are in it: `/chat/completions`,
    `/api/v1/models`, `/v1/v1/models`.
    """
    path = "/" + path.strip("/")
    for known in sorted(paths, key=len, reverse=True):
        if "/" not in {path, known} and (known.endswith(path) or path.endswith(known)):
            return known
    near = difflib.get_close_matches(path[:200], paths, n=1, cutoff=0.75)
    return near[0] if near else None


def render(
    problem: Problem, context: RequestContext, *, path: str | None = None
) -> Response:
    """Return a problem in the shape of its endpoint's dialect.

    `path` is the endpoint's, if it is not the request's.
    """
    dialect = dialect_of(path or context.path)
    status, headers, body = dialect.error(problem, context.request_id)
    response = json_response(body, status)
    if dialect is PLAIN_CHAT and "text/event-stream" in (
        context.field(b"accept") or ""
    ):
        # A stream of one event: what accepts a stream may read nothing else.
        asked = ParsedRequest("", stream=True, body=b"")
        encoder = dialect.encoder(asked, context.request_id, "")
        response.set_data(encoder.error(problem, Answer()))
        response.headers["Content-Type"] = CONTENT_TYPE
        response.headers["Cache-Control"] = "no-cache, no-transform"
    for name, value in headers:
        response.headers[name] = value
    if problem.error_type == UNSUPPORTED_ENCODING:
        response.headers["Accept-Encoding"] = "identity"
    if response.status_code == 401:
        wrong = problem.error_type == "invalid_api_key"
        response.headers["WWW-Authenticate"] = _BAD_TOKEN if wrong else _CHALLENGE
    return response


def _problem_of(exc: HTTPException) -> Problem:
    """Translate what Quart and Werkzeug raise: 404, 405, 413 and their like."""
    status = HTTPStatus(exc.code or 500)
    error_type = {
        404: "not_found",
        405: "method_not_allowed",
        408: "request_timeout",
        413: "payload_too_large",
    }.get(status, "invalid_request" if status < 500 else "internal_error")
    fault = Fault.CALLER if status < 500 else Fault.SERVER
    message = {
        404: "there is nothing at this path; see the README for what there is",
        405: "this path does not take this method; see the Allow header",
        408: "the request's body did not arrive in time",
        413: "the request's body is larger than MAX_BODY_BYTES",
    }.get(status, status.phrase)
    return Problem(status, error_type, message, fault)


def _bug(exc: Exception, context: RequestContext) -> Response:
    logger.opt(exception=exc).error("request failed", event="internal_error")
    if context.stream is not None:
        context.stream.end(Outcome.INTERNAL_ERROR)
    return render(INTERNAL, context)

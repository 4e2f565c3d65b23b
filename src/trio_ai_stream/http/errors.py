"""How refusals look: OpenAI's JSON, the seed's, or one event; under a true status."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from loguru import logger
from quart import Quart, Response, request
from werkzeug.exceptions import HTTPException

from trio_ai_stream.http.incoming import Incoming
from trio_ai_stream.http.responses import json_response
from trio_ai_stream.stream.outcome import Outcome
from trio_ai_stream.wire import openai_errors, sse
from trio_ai_stream.wire.documents import ErrorDocument
from trio_ai_stream.wire.problems import INTERNAL, Fault, Problem, Refused

# RFC 6750 section 3; the error is named to who sent a key, as section 3.1 asks.
_CHALLENGE: Final = 'Bearer realm="trio-ai-stream"'
_BAD_TOKEN: Final = _CHALLENGE + ', error="invalid_token"'


def register(app: Quart, on_refusal: Callable[[Problem], None]) -> None:
    """Give every error its shape, Quart's own 404 and 405 included; tell of each."""

    # Coroutines, because Quart runs a plain function in a thread.
    async def refused(exc: Refused) -> Response:
        on_refusal(exc.problem)
        return render(exc.problem)

    async def http_error(exc: HTTPException) -> Response:
        problem = _problem_of(exc)
        on_refusal(problem)
        response = render(problem)
        for name, value in exc.get_headers():
            if name.lower() == "allow":
                response.headers[name] = value
        return response

    app.register_error_handler(Refused, refused)
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(Exception, _bug)


def render(problem: Problem) -> Response:
    """Return a problem in the shape of its endpoint: OpenAI's, or the seed's."""
    if request.path.startswith("/v1/"):
        response = _openai(problem)
    elif "text/event-stream" in request.headers.get("Accept", ""):
        response = _event(problem)
    else:
        response = _document(problem)
    if (retry_after := problem.retry_after_header) is not None:
        response.headers["Retry-After"] = retry_after
    if response.status_code == 401:
        wrong = problem.error_type == "invalid_api_key"
        response.headers["WWW-Authenticate"] = _BAD_TOKEN if wrong else _CHALLENGE
    return response


def _openai(problem: Problem) -> Response:
    status = openai_errors.status_of(problem)
    response = json_response(openai_errors.error_body(problem), status)
    for name, value in openai_errors.error_headers(problem):
        response.headers[name] = value
    return response


def _event(problem: Problem) -> Response:
    """Return a stream of one event: what accepts a stream may read nothing else."""
    encoder = sse.ChatEncoder(Incoming.current().request_id)
    response = Response(encoder.error(problem), problem.status)
    response.headers["Content-Type"] = sse.CONTENT_TYPE
    response.headers["Cache-Control"] = "no-cache, no-transform"
    return response


def _document(problem: Problem) -> Response:
    error = ErrorDocument(
        message=problem.message,
        code=problem.status,
        error_type=problem.error_type,
        request_id=Incoming.current().request_id,
        timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    return json_response(error, problem.status)


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


async def _bug(exc: Exception) -> Response:
    logger.opt(exception=exc).error("request failed", event="internal_error")
    stream = Incoming.current().stream
    if stream is not None:
        stream.end(Outcome.INTERNAL_ERROR)
    return render(INTERNAL)

"""OpenRouter's errors before a stream: texts, types and bodies by status.

Pure. Messages and types from OpenRouter's error page and OpenAPI file (facts A5).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from trio_ai_stream.simulator.faults import Faults

PIECE = b" " * 4096  # of a body that never ends
CREDITS = "Insufficient credits. Add more using https://openrouter.ai/credits"


class Known(NamedTuple):
    """What OpenRouter says under one status."""

    phrase: str
    message: str
    error_type: str | None


ERRORS: dict[int, Known] = {
    400: Known("Bad Request", "Invalid request parameters", "invalid_request"),
    401: Known("Unauthorized", "Missing Authentication header", "authentication"),
    402: Known("Payment Required", CREDITS, "payment_required"),
    403: Known("Forbidden", "Your input was flagged", "permission_denied"),
    404: Known("Not Found", "Resource not found", "not_found"),
    408: Known("Request Timeout", "Operation timed out. Please try again later.", None),
    413: Known("Payload Too Large", "Request payload too large", "payload_too_large"),
    422: Known("Unprocessable Entity", "Invalid argument", "unprocessable"),
    429: Known("Too Many Requests", "Rate limit exceeded", "rate_limit_exceeded"),
    500: Known("Internal Server Error", "Internal Server Error", "server"),
    502: Known("Bad Gateway", "Provider returned error", "provider_unavailable"),
    503: Known(
        "Service Unavailable", "Service temporarily unavailable", "provider_overloaded"
    ),
    504: Known("Gateway Timeout", "The provider timed out", "timeout"),
    524: Known(
        "A Timeout Occurred", "Request timed out. Please try again later.", None
    ),
    529: Known("Site is overloaded", "Provider Overloaded", "provider_overloaded"),
}
OTHER = Known("Error", "Unexpected error", "unmapped")


def error_object(code: int | str, message: str | None = None) -> dict[str, Any]:
    """Return the `error` object for a code; 500 and its like carry no provider code."""
    known = ERRORS.get(code, OTHER) if isinstance(code, int) else OTHER
    metadata: dict[str, Any] = {}
    if known.error_type is not None:
        metadata["error_type"] = known.error_type
    if code == 429:
        metadata["provider_code"] = "rate_limited"
    error: dict[str, Any] = {"code": code, "message": message or known.message}
    return {**error, "metadata": metadata} if metadata else error


def error_json(code: int | str, message: str | None = None) -> bytes:
    """Return the JSON body of an error."""
    return msgspec.json.encode({"error": error_object(code, message)})


def error_body(faults: Faults) -> tuple[str, bytes]:
    """Return content type and body of the answer that `faults.status` asks for.

    Under 200 the code in the body is `faults.code`, as when a provider fails late.
    """
    status = faults.status or 500
    known = ERRORS.get(status, OTHER)
    if faults.body == "html":
        page = (
            "<!DOCTYPE html>\n<html><head><title>openrouter.ai | "
            f"{status}: {known.phrase}</title></head>\n<body><h1>Error {status}</h1>"
            "<p>cloudflare</p></body></html>\n"
        )
        return "text/html; charset=UTF-8", page.encode()
    if faults.body == "text":
        return "text/plain", f"upstream error: {known.phrase}\n".encode()
    if faults.body == "empty":
        return "application/json", b""
    if faults.body == "endless":
        return "application/json", b'{"error":{"message":"'
    if faults.body == "availability":
        return "application/json", msgspec.json.encode(_availability(faults, known))
    body = error_json(faults.code if status == 200 else status)
    return "application/json", body


def _availability(faults: Faults, known: Known) -> dict[str, Any]:
    hint = faults.retry_after or ""
    seconds = int(hint) if hint.isascii() and hint.isdigit() else 1
    return {
        "error": {
            "message": f"All providers are at capacity. Retry after {seconds} seconds.",
            "error_type": known.error_type,
            "http_status": faults.status,
            "availability": {
                "code": "capacity_exhausted",
                "retryable": True,
                "retry_after": seconds,
                "requested_models": ["simulator/at-capacity"],
                "affected_providers": ["simulator"],
                "fallback_models": ["simulator/default"],
                "docs_url": "https://openrouter.ai/docs/errors#capacity_exhausted",
            },
            "metadata": {
                "previous_errors": [
                    {
                        "provider": "simulator",
                        "code": "capacity_exhausted",
                        "status": faults.status,
                    }
                ]
            },
        }
    }

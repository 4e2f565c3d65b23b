"""Responses of our own making, and the headers that every response carries.

Headers are added to the head where it is written, as bytes: bytes cost a fraction of
Quart's header objects.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec
from quart import Response

from trio_ai_stream.http.request import RequestContext

Headers = list[tuple[bytes, bytes]]

SECURITY: Final = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    # No page of another origin has a use for what it may not read. What CORS allows is
    # read in another mode, which this does not touch.
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # The filter that this header once steered is gone from browsers, and where it still
    # is, it opens holes; the policy above does its work (OWASP HTTP headers cheat
    # sheet).
    (b"x-xss-protection", b"0"),
)
# Sent over TLS only (RFC 6797 section 7.2).
TRANSPORT_SECURITY: Final = (b"strict-transport-security", b"max-age=31536000")


def complete_headers(headers: Headers, context: RequestContext) -> None:
    """Add what the response of a request lacks; a route's own value is kept."""
    present = {name for name, _ in headers}
    if b"cache-control" not in present:
        headers.append((b"cache-control", b"no-store"))
    if context.varies_by_origin and b"vary" not in present:
        headers.append((b"vary", b"Origin"))
    headers.append((b"x-request-id", context.request_id.encode("ascii")))
    if context.decision is not None:
        for name, value in context.decision.headers():
            if (key := _name(name)) not in present:
                headers.append((key, value.encode("ascii")))
    fixed = (*SECURITY, TRANSPORT_SECURITY) if context.secure else SECURITY
    headers += [header for header in fixed if header[0] not in present]


@lru_cache(maxsize=16)  # a live stream holds its head: let all of them share the names
def _name(name: str) -> bytes:
    return name.lower().encode("ascii")


def json_response(document: msgspec.Struct | bytes, status: int = 200) -> Response:
    """Return a document, or JSON that is encoded already, as a response."""
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    response = Response(body, status)
    response.headers["Content-Type"] = "application/json"
    response.headers["Cache-Control"] = "no-store"
    return response

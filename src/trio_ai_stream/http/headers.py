"""Headers that every response carries: request id, rate limit, security."""

from __future__ import annotations

from typing import Final

from quart import Quart, Response

from trio_ai_stream.http.incoming import Incoming

SECURITY: Final[dict[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # The filter that this header once steered is gone from browsers, and where it still
    # is, it opens holes; the policy above does its work (OWASP HTTP headers cheat
    # sheet).
    "X-XSS-Protection": "0",
}
# Sent over TLS only (RFC 6797 section 7.2).
TRANSPORT_SECURITY: Final = "max-age=31536000"


def register(app: Quart) -> None:
    """Add the headers to each response; a route's own value is kept."""

    @app.after_request
    async def add(response: Response) -> Response:
        incoming = Incoming.current()
        headers = response.headers
        headers["X-Request-ID"] = incoming.request_id
        if incoming.decision is not None:
            for name, value in incoming.decision.headers():
                headers[name] = value
        for name, value in SECURITY.items():
            headers.setdefault(name, value)
        if incoming.secure:
            headers.setdefault("Strict-Transport-Security", TRANSPORT_SECURITY)
        return response

"""JSON responses of our own making."""

from __future__ import annotations

import msgspec
from quart import Response


def json_response(document: msgspec.Struct | bytes, status: int = 200) -> Response:
    """Return a document, or JSON that is encoded already, as a response."""
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    response = Response(body, status)
    response.headers["Content-Type"] = "application/json"
    response.headers["Cache-Control"] = "no-store"
    return response

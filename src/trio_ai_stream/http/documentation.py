"""`GET /openapi.json` and `GET /docs`: the API's description, made by scripts/openapi.

Both are files of the package. The server adds only whether requests need a key.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, Final

import msgspec
from quart import Blueprint, Response

from trio_ai_stream.settings import Settings

_FOLDER: Final = Path(__file__).parent


def documentation_blueprint(settings: Settings) -> Blueprint:
    """Return the blueprint with the document and the page."""
    blueprint = Blueprint("documentation", __name__)
    document: dict[str, Any] = msgspec.json.decode(
        (_FOLDER / "openapi.json").read_bytes()
    )
    if settings.keys_required:
        document["security"] = [{"bearer": []}, {"api_key": []}]
    document_bytes = msgspec.json.encode(document)
    page_bytes = (_FOLDER / "openapi.html").read_bytes()
    policy = _policy(page_bytes)

    @blueprint.get("/openapi.json")
    async def openapi() -> Response:
        response = Response(document_bytes, content_type="application/json")
        response.headers["Cache-Control"] = "no-cache"
        return response

    @blueprint.get("/docs")
    async def docs() -> Response:
        response = Response(page_bytes, content_type="text/html; charset=utf-8")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Content-Security-Policy"] = policy
        return response

    return blueprint


def _policy(page: bytes) -> str:
    """Return a policy that allows the page's own style, by its hash, and no more."""
    style = page.partition(b"<style>")[2].partition(b"</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    )

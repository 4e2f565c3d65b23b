"""The page's files, read once and served from memory.

They are a few tens of kilobytes; reading them for each request would take a thread of
Trio's, and two workers never disagree about a file that is read at start.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quart import Response, request

PREFIX: Final = "/page/"
FOLDER: Final = Path(__file__).with_name("static")
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing from elsewhere and nothing inline. `style-src` does not stop the page's own
# scripts from setting single properties (CSSOM), which is how the time bars shrink.
POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, its type, its validator."""

    body: bytes
    content_type: str
    etag: str

    def respond(self) -> Response:
        """Answer the current request: the file, or 304 to a client that has it.

        `no-cache` means ask each time (RFC 9111 section 5.2.2.4), so that a new release
        shows at once.
        """
        unchanged = request.if_none_match.contains_weak(self.etag)
        response = Response(b"" if unchanged else self.body, 304 if unchanged else 200)
        response.headers["Content-Type"] = self.content_type
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Content-Security-Policy"] = POLICY
        response.set_etag(self.etag)
        return response


def load_assets(folder: Path = FOLDER) -> dict[str, Asset]:
    """Read every file of the page, by name."""
    return {
        path.name: Asset(
            body, TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:32]
        )
        for path in sorted(folder.iterdir())
        if (body := path.read_bytes())
    }

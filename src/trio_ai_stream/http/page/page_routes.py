"""`GET /`: the page; `/page/…`: its files, what it must know, its Markdown.

The files are a few tens of kilobytes. They are read once and served from memory:
reading them for each request would take a thread of Trio's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import trio
from quart import Blueprint, Response, abort, request

from trio_ai_stream.http.http_responses import json_response
from trio_ai_stream.http.page.markdown import MAX_TEXT, blocks
from trio_ai_stream.http.services import Services
from trio_ai_stream.settings import Settings
from trio_ai_stream.simulator.faults import PREFIX as SIMULATOR_PREFIX
from trio_ai_stream.simulator.faults import PRESETS
from trio_ai_stream.stream.budgets import REUSE_S
from trio_ai_stream.wire.problems import Problem, Refused

PREFIX: Final = "/page/"
# Costs more than a file does, so it needs a key where `/chat` does.
MARKDOWN: Final = f"{PREFIX}markdown"
FOLDER: Final = Path(__file__).with_name("static")
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing of another origin and nothing inline. `style-src` does not stop the page's own
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


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /page/markdown`."""

    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


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


def page_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with the page; its files need no key."""
    blueprint = Blueprint("page", __name__)
    assets = load_assets()
    # One at a time: whoever has the page parse all day takes one core's half at most.
    parsers = trio.CapacityLimiter(1)

    @blueprint.get("/")
    async def page() -> Response:
        return assets["index.html"].respond()

    @blueprint.get(f"{PREFIX}config")
    async def page_config_() -> dict[str, Any]:
        return page_config(services.settings)

    @blueprint.post(MARKDOWN)
    async def markdown() -> Response:
        try:
            source = msgspec.json.decode(await request.get_data(), type=Source)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise Refused(Problem(400, "invalid_request", str(exc))) from exc
        found = await trio.to_thread.run_sync(blocks, source.text, limiter=parsers)
        return json_response(msgspec.json.encode(found))

    @blueprint.get(f"{PREFIX}<name>")
    async def file(name: str) -> Response:
        if name not in assets:
            abort(404)
        return assets[name].respond()

    return blueprint


def page_config(settings: Settings) -> dict[str, Any]:
    """Return what the page must know of the server; no secret is in it."""
    simulated = settings.upstream_kind == "simulator"
    return {
        "version": version("trio-ai-stream"),
        "upstream": settings.upstream_kind,
        "key_needed": settings.keys_required,
        "default_model": settings.OPENROUTER_MODEL,
        "max_messages_length": settings.MAX_MESSAGES_LENGTH,
        "budgets": {
            "first_token": settings.FIRST_TOKEN_TIMEOUT_SECS,
            "idle": settings.STREAM_IDLE_TIMEOUT_SECS,
            "deadline": settings.STREAM_DEADLINE_SECS,
            "terminal_event": settings.WRITE_TIMEOUT_SECS,
            "rest": REUSE_S,
        },
        "faults": [
            {"model": SIMULATOR_PREFIX + name, "description": preset.description}
            for name, preset in PRESETS.items()
            if simulated
        ],
    }

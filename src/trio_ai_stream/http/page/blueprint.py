"""`GET /`: the page; `/page/…`: its files; `/page/config`: what it must know."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from quart import Blueprint, Response, abort

from trio_ai_stream.http.page.assets import PREFIX, load_assets
from trio_ai_stream.http.services import Services
from trio_ai_stream.settings import Settings
from trio_ai_stream.simulator.faults import PREFIX as SIMULATOR_PREFIX
from trio_ai_stream.simulator.faults import PRESETS


def page_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with the page; it needs no key, only `/chat` does."""
    blueprint = Blueprint("page", __name__)
    assets = load_assets()
    config = page_config(services.settings)

    @blueprint.get("/")
    async def page() -> Response:
        return assets["index.html"].respond()

    @blueprint.get(f"{PREFIX}config")
    async def page_config_() -> dict[str, Any]:
        return config

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
        },
        "faults": [
            {"model": SIMULATOR_PREFIX + name, "description": preset.description}
            for name, preset in PRESETS.items()
            if simulated
        ],
    }

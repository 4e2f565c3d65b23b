"""`GET /health` and `GET /ready`: alive, and willing."""

from __future__ import annotations

from importlib.metadata import version

from quart import Blueprint

from trio_ai_stream.http.services import Services


def health_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with the probes; they are never rate-limited."""
    blueprint = Blueprint("health", __name__)
    release = version("trio-ai-stream")

    @blueprint.get("/health")
    async def health() -> dict[str, object]:
        return {
            "status": "ok",
            "version": release,
            "upstream": services.settings.upstream_kind,
            "live_streams": len(services.registry),
        }

    @blueprint.get("/ready")
    async def ready() -> tuple[dict[str, object], int]:
        reasons = []
        if services.registry.draining.is_set():
            reasons.append("the server is draining")
        if services.upstream is None:
            reasons.append("upstream is not there yet")
        elif services.upstream.rejected_key:
            reasons.append("upstream rejected OPENROUTER_API_KEY")
        status = "not ready" if reasons else "ready"
        return {"status": status, "reasons": reasons}, 503 if reasons else 200

    return blueprint

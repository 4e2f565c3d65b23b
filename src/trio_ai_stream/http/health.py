"""`GET /health` and `GET /ready`: alive, and willing."""

from __future__ import annotations

from importlib.metadata import version

from quart import Blueprint, Response
from quart_schema import document_response

from trio_ai_stream.http.responses import json_response
from trio_ai_stream.http.services import Services
from trio_ai_stream.wire.documents import Health, Readiness


def health_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with the probes; they are never rate-limited."""
    blueprint = Blueprint("health", __name__)
    release = version("trio-ai-stream")

    @blueprint.get("/health")
    @document_response(Health)
    async def health() -> Response:
        """Say that the process is alive; needs no key."""
        document = Health(
            status="ok",
            version=release,
            upstream=services.settings.upstream_kind,
            live_streams=len(services.registry),
        )
        return json_response(document)

    @blueprint.get("/ready")
    @document_response(Readiness)
    @document_response(Readiness, 503)
    async def ready() -> Response:
        """Say whether the server takes new streams; needs no key."""
        reasons = []
        gate = services.gate.status()
        if gate.mode == "fallback" and gate.policy == "closed":
            reasons.append("limits can't be checked, and RATE_LIMIT_FALLBACK=closed")
        if services.registry.draining.is_set():
            reasons.append("the server is draining")
        if services.upstream is None:
            reasons.append("upstream is not there yet")
        elif services.upstream.rejected_key:
            reasons.append("upstream rejected OPENROUTER_API_KEY")
        if reasons:
            return json_response(Readiness("not ready", reasons, gate.mode), 503)
        return json_response(Readiness("ready", reasons, gate.mode))

    return blueprint

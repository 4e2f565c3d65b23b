"""`GET /health` and `GET /ready`: alive, and willing."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from quart import Blueprint, Response

from trio_ai_stream.http.responses import json_response
from trio_ai_stream.http.services import Services
from trio_ai_stream.wire.documents import Health, Readiness

# Read at start: a process without descriptors answers the probes, too.
_RELEASE: Final = version("trio-ai-stream")


def health(services: Services) -> Health:
    """Say that the process is alive."""
    return Health(
        status="ok",
        version=_RELEASE,
        upstream=services.settings.upstream_kind,
        live_streams=len(services.registry),
    )


def readiness(services: Services) -> Readiness:
    """Say whether the server takes new streams, and if not, why."""
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
    circuit = "closed" if services.upstream is None else services.upstream.circuit
    return Readiness("not ready" if reasons else "ready", reasons, gate.mode, circuit)


def health_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with the probes; they are never rate-limited."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health")
    async def answer_health() -> Response:
        """Say that the process is alive; needs no key."""
        return json_response(health(services))

    @blueprint.get("/ready")
    async def answer_ready() -> Response:
        """Say whether the server takes new streams; needs no key."""
        document = readiness(services)
        return json_response(document, 200 if document.status == "ready" else 503)

    return blueprint

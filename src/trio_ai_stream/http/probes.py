"""`/health`, `/ready` and `/metrics`, on the first port and on the management port.

The management port needs no key: who may connect is decided by the address that
METRICS_PORT names, which is loopback unless it names another. Its application is plain
ASGI: neither rate limit nor keys nor request records stand before a probe. On loopback
the `Host` must name loopback, as on the first port: a page of another site may try DNS
rebinding.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import msgspec
from quart import Blueprint, Response, request

from trio_ai_stream.http.auth import is_loopback, names_loopback, require_operator
from trio_ai_stream.http.http_responses import json_response
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


def probes_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with all three; they are never rate-limited.

    The metrics tell of all clients together, so they are an operator's to read: with
    ADMIN_KEYS one of those is needed, with API_KEYS alone one of those.
    """
    blueprint = Blueprint("probes", __name__)

    @blueprint.get("/health")
    async def answer_health() -> Response:
        """Say that the process is alive; needs no key."""
        return json_response(health(services))

    @blueprint.get("/ready")
    async def answer_ready() -> Response:
        """Say whether the server takes new streams; needs no key."""
        document = readiness(services)
        return json_response(document, 200 if document.status == "ready" else 503)

    @blueprint.get("/metrics")
    async def metrics() -> Response:
        """Report the metrics of all workers; an operator's to read."""
        require_operator(services)
        accept = request.headers.get("Accept", "")
        content_type, body = services.metrics.render(accept)
        response = Response(body)
        response.headers["Content-Type"] = content_type
        response.headers["Cache-Control"] = "no-store"
        return response

    return blueprint


Answer = tuple[int, str, bytes]
_JSON: Final = "application/json"


def management_app(services: Services) -> Callable[..., Any]:
    """Return the ASGI application of the management listener."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        status, content_type, body = _answer(services, scope)
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        await send({"type": "http.response.body", "body": body})

    return app


def _answer(services: Services, scope: Any) -> Answer:
    headers = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    if is_loopback(scope["server"][0]) and not names_loopback(host):
        return 403, "text/plain", b"expected a Host that names loopback\n"
    if scope["method"] not in {"GET", "HEAD"}:
        return 405, "text/plain", b"expected GET\n"
    if scope["path"] == "/metrics":
        accept = headers.get(b"accept", b"").decode("latin-1")
        return 200, *services.metrics.render(accept)
    if scope["path"] == "/health":
        return 200, _JSON, msgspec.json.encode(health(services))
    if scope["path"] == "/ready":
        document = readiness(services)
        status = 200 if document.status == "ready" else 503
        return status, _JSON, msgspec.json.encode(document)
    return 404, "text/plain", b"expected /metrics, /health or /ready\n"

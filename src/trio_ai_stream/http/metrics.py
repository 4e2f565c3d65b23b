"""`GET /metrics`: what a Prometheus scraper reads, and the counting of refusals."""

from __future__ import annotations

from typing import Final

from quart import Blueprint, Response, request

from trio_ai_stream.http.keys import require_operator
from trio_ai_stream.http.services import Services
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.wire.problems import Problem

# Error types by the reason that they are counted under; the others count as `other`.
REASONS: Final = {
    "too_many_requests": "rate_limit",
    "too_many_streams": "server_permits",
    "too_many_streams_of_client": "client_permits",
    "limits_unavailable": "gate_closed",
    "shutting_down": "draining",
    "missing_api_key": "unauthorized",
    "invalid_api_key": "unauthorized",
    "loopback_only": "forbidden",
    "permission_denied": "forbidden",
    "invalid_request": "invalid_request",
    "unsupported_media_type": "invalid_request",
    "unsupported_content_encoding": "invalid_request",
    "payload_too_large": "too_large",
    "too_many_bodies": "too_many_bodies",
}


def count_refusal(metrics: Metrics, problem: Problem) -> None:
    """Count a request that was refused before a stream."""
    metrics.refused(REASONS.get(problem.error_type, "other"))


def metrics_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with the scraper's endpoint.

    It is not rate-limited. It tells of all clients together, so it is an operator's to
    read: with ADMIN_KEYS one of those is needed, with API_KEYS alone one of those.
    """
    blueprint = Blueprint("metrics", __name__)

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

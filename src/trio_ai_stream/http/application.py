"""The Quart-Trio application: routes, error shapes, headers, limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio
from quart import Response, request
from quart_cors import cors
from quart_trio import QuartTrio

from trio_ai_stream.http import errors, headers
from trio_ai_stream.http.admission import admit_request
from trio_ai_stream.http.chat import chat_blueprint
from trio_ai_stream.http.connection import Connection
from trio_ai_stream.http.health import health_blueprint
from trio_ai_stream.http.lifespan import Lifespan
from trio_ai_stream.http.services import Services

# Probes must answer when clients are refused.
UNLIMITED: Final = frozenset({"/health", "/ready"})


class Application(QuartTrio):
    """Quart-Trio with our connection, our lifespan and the services."""

    asgi_http_class = Connection
    asgi_lifespan_class = Lifespan  # type: ignore[assignment]

    def __init__(
        self,
        services: Services,
        start_services: Callable[[trio.Nursery], Awaitable[None]],
    ) -> None:
        super().__init__("trio_ai_stream")
        self.services = services
        self.start_services = start_services
        settings = services.settings
        self.config["MAX_CONTENT_LENGTH"] = settings.MAX_BODY_BYTES
        self.config["BODY_TIMEOUT"] = settings.READ_TIMEOUT_SECS
        self.config["RESPONSE_TIMEOUT"] = None  # budgets and the guard bound responses
        errors.register(self)
        headers.register(self)
        self.before_request(self._admit)
        self.register_blueprint(chat_blueprint(services))
        self.register_blueprint(health_blueprint(services))
        if settings.CORS_ALLOW_ORIGINS:
            cors(
                self,
                allow_origin=list(settings.CORS_ALLOW_ORIGINS),
                allow_methods=["GET", "POST", "DELETE", "OPTIONS"],
                allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
                expose_headers=["X-Request-ID", "Retry-After", "RateLimit"],
            )

    async def _admit(self) -> Response | None:
        if request.path not in UNLIMITED and request.method != "OPTIONS":
            await admit_request(self.services)
        return None

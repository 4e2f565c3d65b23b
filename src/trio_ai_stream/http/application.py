"""The Quart-Trio application: routes, error shapes, headers, limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio
from quart import Response, request
from quart_cors import cors
from quart_trio import QuartTrio

from trio_ai_stream.http import errors
from trio_ai_stream.http.admission import admit_request
from trio_ai_stream.http.chat import chat_blueprint
from trio_ai_stream.http.connection import Connection
from trio_ai_stream.http.documentation import documentation_blueprint
from trio_ai_stream.http.health import health_blueprint
from trio_ai_stream.http.keys import PROBES, check_client
from trio_ai_stream.http.lifespan import Lifespan
from trio_ai_stream.http.live import live_blueprint
from trio_ai_stream.http.metrics import count_refusal, metrics_blueprint
from trio_ai_stream.http.models import models_blueprint
from trio_ai_stream.http.openai import openai_blueprint
from trio_ai_stream.http.openapi import add_openapi
from trio_ai_stream.http.page.assets import PREFIX as PAGE_PREFIX
from trio_ai_stream.http.page.blueprint import page_blueprint
from trio_ai_stream.http.services import Services
from trio_ai_stream.http.streams import streams_blueprint
from trio_ai_stream.wire.problems import Refused

# Probes and scrapers must be answered when clients are refused. Whoever guesses a key
# is counted all the same.
UNLIMITED: Final = PROBES | {"/metrics"}
# One visit to the page is a dozen small files out of memory; they cost less than
# counting them would, and must not use up what `/chat` is allowed.
UNLIMITED_PREFIX: Final = PAGE_PREFIX


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
        errors.register(self, partial(count_refusal, services.metrics))
        self.before_request(self._admit)
        self.register_blueprint(chat_blueprint(services))
        self.register_blueprint(openai_blueprint(services))
        self.register_blueprint(models_blueprint(services))
        self.register_blueprint(streams_blueprint(services))
        self.register_blueprint(health_blueprint(services))
        self.register_blueprint(metrics_blueprint(services))
        self.register_blueprint(documentation_blueprint())
        self.register_blueprint(live_blueprint(services))
        self.register_blueprint(page_blueprint(services))
        add_openapi(self, settings)
        if settings.CORS_ALLOW_ORIGINS:
            cors(
                self,
                allow_origin=list(settings.CORS_ALLOW_ORIGINS),
                allow_methods=["GET", "POST", "DELETE", "OPTIONS"],
                allow_headers="*",  # SDKs send many of their own: x-stainless-*
                expose_headers=["X-Request-ID", "Retry-After", "RateLimit"],
            )

    async def _admit(self) -> Response | None:
        if request.method == "OPTIONS":
            return None
        refusal = check_client(self.services)
        path = request.path
        unlimited = path in UNLIMITED or path.startswith(UNLIMITED_PREFIX)
        if refusal is not None or not unlimited:
            await admit_request(self.services)
        if refusal is not None:
            raise Refused(refusal)
        return None

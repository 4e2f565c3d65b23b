"""The Quart-Trio application: routes, error shapes, limits; its lifespan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import trio
from loguru import logger
from quart_cors import cors
from quart_trio import QuartTrio

from trio_ai_stream.admission.gate import ClusterRefusedError
from trio_ai_stream.admission.rate_limit import FIELDS
from trio_ai_stream.dialects.catalogue import DIALECTS
from trio_ai_stream.http import errors
from trio_ai_stream.http.accounts import accounts_blueprint
from trio_ai_stream.http.admit import admit_request
from trio_ai_stream.http.asgi import ASGIConnection
from trio_ai_stream.http.documentation import documentation_blueprint
from trio_ai_stream.http.endpoint import Endpoint
from trio_ai_stream.http.live_view import live_blueprint
from trio_ai_stream.http.models import models_blueprint
from trio_ai_stream.http.page.page_routes import page_blueprint
from trio_ai_stream.http.probes import (
    count_refusal,
    health_blueprint,
    metrics_blueprint,
)
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.resume_routes import resume_blueprint
from trio_ai_stream.http.services import Services
from trio_ai_stream.http.streams import streams_blueprint
from trio_ai_stream.http.usage_routes import usage_blueprint

GRACE_FIELDS: Final = ("X-Stream-Grace", "X-Stream-Resume")


class Lifespan:
    """The ASGI lifespan of one worker (https://asgi.readthedocs.io, lifespan 2.0).

    Quart-Trio's own adapter cancels the nursery that its shutdown functions run in, so
    they cannot await; this one cancels the nursery last.
    """

    def __init__(self, app: Application, _scope: Any) -> None:
        self.app = app

    async def __call__(
        self,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Start the services, wait for shutdown, stop them; in one nursery."""
        await receive()  # lifespan.startup
        started = False
        try:
            async with trio.open_nursery() as nursery:
                self.app.nursery = nursery
                await self.app.start_services(nursery)
                started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()  # lifespan.shutdown
                await self.app.services.billing.spending.leave()
                await self.app.services.gate.leave()
                nursery.cancel_scope.cancel(reason="shutdown")
        except Exception as exc:
            phase = "shutdown" if started else "startup"
            cause = _only_cause(exc)
            if not isinstance(cause, ClusterRefusedError | OSError):  # no bug of ours
                logger.exception(f"{phase} of the services failed")
            await send({"type": f"lifespan.{phase}.failed", "message": str(cause)})
        else:
            await send({"type": "lifespan.shutdown.complete"})


def _only_cause(exc: Exception) -> Exception:
    """Return what a group was made for, if it is one exception."""
    while isinstance(exc, ExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


class Application(QuartTrio):
    """Quart-Trio with our connection, our lifespan and the services."""

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
        self.config["RESPONSE_TIMEOUT"] = None  # budgets and the server bound responses
        # A redirect would take its host from the request. There is none without this:
        # no route ends with a slash.
        self.url_map.merge_slashes = False
        self.paths: set[str] = set()
        self.respond = partial(
            errors.respond,
            on_refusal=partial(count_refusal, services.metrics),
            paths=self.paths,
        )
        errors.register(self, self.respond)
        self.before_request(self._admit)
        self.endpoints: dict[str, Endpoint] = {}
        for dialect in DIALECTS:
            endpoint = self.endpoints[dialect.path] = Endpoint(services, dialect)
            answer = endpoint.answer_through_quart
            self.add_url_rule(dialect.path, dialect.path, answer, methods=["POST"])
        self.register_blueprint(models_blueprint(services))
        self.register_blueprint(accounts_blueprint(services))
        self.register_blueprint(streams_blueprint(services))
        self.register_blueprint(resume_blueprint(services))
        self.register_blueprint(health_blueprint(services))
        self.register_blueprint(metrics_blueprint(services))
        self.register_blueprint(documentation_blueprint(settings))
        self.register_blueprint(live_blueprint(services))
        self.register_blueprint(usage_blueprint(services))
        self.register_blueprint(page_blueprint(services))
        self.paths |= {r.rule for r in self.url_map.iter_rules() if not r.arguments}
        if settings.CORS_ALLOW_ORIGINS:
            cors(
                self,
                allow_origin=list(settings.CORS_ALLOW_ORIGINS),
                allow_methods=["GET", "POST", "DELETE", "OPTIONS"],
                allow_headers="*",  # SDKs send many of their own: x-stainless-*
                expose_headers=["X-Request-ID", *GRACE_FIELDS, *FIELDS],
            )

    def asgi_app(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:  # type: ignore[override]
        """Call the connection of a request: Quart's own, but for a frame on the stack.

        Every live stream holds that frame, and every event passes through it.
        """
        if scope["type"] != "http":
            return super().asgi_app(scope, receive, send)
        connection = ASGIConnection(
            self, scope, self.services, self.direct_endpoint, self.respond
        )
        return connection(receive, send)

    def direct_endpoint(self, context: RequestContext) -> Endpoint | None:
        """Return the endpoint that answers without Quart; None: Quart answers."""
        if context.method != "POST" or context.scope.get("root_path"):
            return None
        if self.services.settings.CORS_ALLOW_ORIGINS and context.field(b"origin"):
            return None
        return self.endpoints.get(context.path)

    async def _admit(self) -> None:
        await admit_request(self.services, RequestContext.current())

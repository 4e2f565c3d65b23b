"""The Quart-Trio application: routes, error shapes, limits; its ASGI calls.

`ASGIConnection` stands in for Quart's own adapter, because the permit, the registry
entry and the outcome of a stream must be released by something that encloses the whole
call: a response body is not entered when a cancel lands early.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from functools import partial
from typing import Any, cast

import trio
from loguru import logger
from quart import Response
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers.request import Body
from quart_cors import cors
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection

from trio_ai_stream.admission.gate import FIELDS, ClusterRefusedError
from trio_ai_stream.dialects.catalogue import DIALECTS
from trio_ai_stream.dialects.refusals import SHOULD_RETRY
from trio_ai_stream.http import errors
from trio_ai_stream.http.accounts import accounts_blueprint
from trio_ai_stream.http.admit import admit_request, is_routine
from trio_ai_stream.http.documentation import documentation_blueprint
from trio_ai_stream.http.endpoint import (
    STREAM_HEADERS,
    Endpoint,
    Receive,
    Run,
    StreamResponse,
    read_body,
    require_json,
)
from trio_ai_stream.http.http_responses import Send, complete_headers
from trio_ai_stream.http.live_view import live_blueprint
from trio_ai_stream.http.models import models_blueprint
from trio_ai_stream.http.page.page_routes import page_blueprint
from trio_ai_stream.http.probes import probes_blueprint
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.resume_routes import peers_blueprint, resume_blueprint
from trio_ai_stream.http.services import Services
from trio_ai_stream.http.streams import streams_blueprint
from trio_ai_stream.http.usage_routes import usage_blueprint
from trio_ai_stream.telemetry.log_rendering import shown_client
from trio_ai_stream.telemetry.logs import REQUEST_ID
from trio_ai_stream.wire.problems import Refused
from trio_ai_stream.wire.record import Outcome


class ASGIConnection(TrioASGIHTTPConnection):
    """Runs one request in one scope; its stream is closed with it."""

    def __init__(
        self,
        app: QuartTrio,
        scope: Any,
        services: Services,
        direct_endpoint: Callable[[RequestContext], Endpoint | None],
        respond: Callable[[Exception, RequestContext], Response],
    ) -> None:
        super().__init__(app, scope)
        self._services = services
        self._direct_endpoint = direct_endpoint
        self._respond = respond

    async def __call__(self, receive: Receive, send: Send) -> None:
        """Handle the request; ends early when the client goes away."""
        services = self._services
        context = RequestContext.enter(
            cast("dict[str, Any]", self.scope), services.request_ids
        )
        token = REQUEST_ID.set(context.request_id)
        logger.debug(
            "request started",
            event="request_started",
            method=context.method,
            path=context.path,
            http_version=context.http_version,
        )
        end: Outcome | None = None
        origins = services.settings.CORS_ALLOW_ORIGINS
        context.varies_by_origin = bool(origins) and "*" not in origins
        try:
            with trio.CancelScope() as client:
                context.client_scope = client
                context.exchange.on_disconnect(context.client_left)
                endpoint = self._direct_endpoint(context)
                if endpoint is not None and context.exchange.reports_disconnect:
                    run = await self._open(endpoint, context, receive, send)
                    if run is not None:
                        answer = run(send, STREAM_HEADERS)
                        # A stream outlives what has begun it.
                        del run, self.scope
                        context.release_scope()
                        await answer
                else:
                    await self._answer_listening(endpoint, context, receive, send)
        except Exception:
            end = Outcome.INTERNAL_ERROR
            raise
        finally:
            context.exchange.ignore_disconnect()
            if end is None:  # the first cause wins
                draining = services.registry.draining.is_set()
                end = context.left or (
                    Outcome.SHUTDOWN if draining else Outcome.CLIENT_DISCONNECTED
                )
            context.leave(services.request_ids)
            services.bodies.give_back(context)
            if context.stream is not None:
                context.stream.close(outcome=end)
            self._log_end(context)
            REQUEST_ID.reset(token)

    async def _answer_listening(
        self,
        endpoint: Endpoint | None,
        context: RequestContext,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer with a task beside it that receives what the client says."""
        async with trio.open_nursery() as nursery:
            listen = partial(self._listen, context, receive)
            if endpoint is None:
                request = self._create_request_from_scope(send)
                if context.exchange.limits_body_time:
                    request.body_timeout = None
                nursery.start_soon(listen, request.body)
                response = await self.app.handle_request(request)
                del request  # a stream outlives what Quart made of its request
                if isinstance(response, StreamResponse):
                    await response.run(send, encode_headers(response.headers))
                else:
                    await self._send_whole(context, send, response)
            else:
                after_body = partial(nursery.start_soon, listen)
                run = await self._open(endpoint, context, receive, send, after_body)
                if run is not None:
                    await run(send, STREAM_HEADERS)
            nursery.cancel_scope.cancel(reason="response sent")

    async def _listen(
        self, context: RequestContext, receive: Receive, body: Body | None = None
    ) -> None:
        """Feed Quart the request's body, if it has one; wait for the client to go."""
        while (message := await receive())["type"] == "http.request":
            if body is not None:
                try:
                    self._services.bodies.take(context, len(message["body"]))
                    body.append(message["body"])
                except Refused as exc:
                    body._must_raise = exc  # Quart's way to raise it in the route
                    body.set_complete()
                if not message["more_body"]:
                    body.set_complete()
        context.client_left()

    async def _open(
        self,
        endpoint: Endpoint,
        context: RequestContext,
        receive: Receive,
        send: Send,
        after_body: Callable[[], None] | None = None,
    ) -> Run | None:
        """Return the response of a stream's endpoint; None: the answer was another.

        The caller runs it: a frame less to hold for each live stream.
        """
        services = self._services
        try:
            await admit_request(services, context)
            require_json(context)
            body = await read_body(
                context,
                receive,
                services.bodies,
                at_most=services.settings.MAX_BODY_BYTES,
                within_s=services.settings.READ_TIMEOUT_SECS,
            )
            if body is None:
                return None
            if after_body is not None:
                after_body()
            return await endpoint.open(context, body)
        except Exception as exc:
            await self._send_whole(context, send, self._respond(exc, context))
            return None

    async def _send_whole(
        self, context: RequestContext, send: Send, response: ResponseTypes
    ) -> None:
        context.status = response.status_code

        async def send_complete(message: Any) -> None:
            if message["type"] == "http.response.start":
                complete_headers(message["headers"], context)
            await send(message)

        await self._send_response(send_complete, response)

    def _log_end(self, context: RequestContext) -> None:
        settings = self._services.settings
        self._services.metrics.request_ended(context.status)
        # A stream has one record, its own; probes and the page's files would drown what
        # matters.
        quiet = context.stream is not None or is_routine(context)
        logger.log(
            "DEBUG" if quiet else "INFO",
            "request ended",
            event="request_ended",
            method=context.method,
            path=context.path,
            http_version=context.http_version,
            status=context.status,
            client=shown_client(context.client_id, settings.LOG_CLIENTS),
            duration_ms=round(1000 * (trio.current_time() - context.began_at), 3),
        )


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
        self.paths: set[str] = set()
        self.respond = _prepare(self, services, self.paths)
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
        self.register_blueprint(probes_blueprint(services))
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
                expose_headers=[
                    "X-Request-ID",
                    "Request-Id",
                    SHOULD_RETRY,
                    "X-Stream-Grace",
                    "X-Stream-Resume",
                    *FIELDS,
                ],
                max_age=timedelta(hours=1),  # not a preflight before each question
            )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the application, and leave the scope to what it calls."""
        answer = self.asgi_app(scope, receive, send)
        del scope
        await answer

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


def peer_app(services: Services) -> Callable[..., Awaitable[None]]:
    """Return the ASGI application of the listeners for other processes."""
    app = QuartTrio("trio_ai_stream")
    respond = _prepare(app, services, ())
    app.register_blueprint(peers_blueprint(services))

    def serve(scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
        connection = ASGIConnection(app, scope, services, _through_quart, respond)
        return connection(receive, send)

    return serve


def _through_quart(_context: RequestContext) -> None:
    """Say that no endpoint is called directly."""


def _prepare(
    app: QuartTrio, services: Services, paths: Collection[str]
) -> Callable[[Exception, RequestContext], Response]:
    """Set what each application needs; return what answers its errors."""
    app.config["RESPONSE_TIMEOUT"] = None  # budgets and the server bound responses
    # A redirect would take its host from the request. There is none without this: no
    # route ends with a slash.
    app.url_map.merge_slashes = False
    respond = partial(errors.respond, metrics=services.metrics, paths=paths)
    errors.register(app, respond)
    return respond

"""The ASGI call of one request: its scope, its disconnect, its records.

It stands in for Quart's own adapter, because the permit, the registry entry and the
outcome of a stream must be released by something that encloses the whole call: a
response body is not entered when a cancel lands early.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import trio
from loguru import logger
from quart import Response
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers.request import Body
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection

from trio_ai_stream.http.admit import admit_request, is_routine
from trio_ai_stream.http.endpoint import (
    STREAM_HEADERS,
    Endpoint,
    Receive,
    Run,
    StreamResponse,
    read_body,
    require_json,
)
from trio_ai_stream.http.http_responses import complete_headers
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.responder import Send
from trio_ai_stream.http.services import Services
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
        scope = cast("dict[str, Any]", self.scope)
        context = RequestContext.enter(scope, services.request_ids)
        token = REQUEST_ID.set(context.request_id)
        logger.debug(
            "request started",
            event="request_started",
            method=context.method,
            path=context.path,
            http_version=self.scope["http_version"],
        )
        end: Outcome | None = None
        origins = services.settings.CORS_ALLOW_ORIGINS
        context.varies_by_origin = bool(origins) and "*" not in origins
        try:
            with trio.CancelScope() as client:
                context.exchange.on_disconnect(partial(_leave, client, context))
                endpoint = self._direct_endpoint(context)
                if endpoint is not None and context.exchange.reports_disconnect:
                    run = await self._open(endpoint, context, receive, send)
                    if run is not None:
                        await run(send, STREAM_HEADERS)
                else:
                    await self._answer_listening(endpoint, context, receive, send)
        except Exception:
            end = Outcome.INTERNAL_ERROR
            raise
        finally:
            context.exchange.ignore_disconnect()
            if end is None:
                end = _how_it_left(context)
            if (
                services.registry.draining.is_set()
                and end is not Outcome.INTERNAL_ERROR
            ):
                end = Outcome.SHUTDOWN
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
            client = nursery.cancel_scope
            listen = partial(self._listen, client, context, receive)
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
            client.cancel(reason="response sent")

    async def _listen(
        self,
        client: trio.CancelScope,
        context: RequestContext,
        receive: Receive,
        body: Body | None = None,
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
        _leave(client, context)

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
            http_version=self.scope["http_version"],
            status=context.status,
            client=shown_client(context.client_id, settings.LOG_CLIENTS),
            duration_ms=round(1000 * (trio.current_time() - context.began_at), 3),
        )


def _leave(client: trio.CancelScope, context: RequestContext) -> None:
    """End what the request does: its client is gone. Synchronous.

    The connection to upstream is closed before this returns, whether upstream has
    answered or not; one that is being made is given up as the cancel reaches it.
    """
    outcome = _how_it_left(context)
    if context.stream is not None:
        context.stream.end(outcome)
    client.cancel(reason=outcome.value)


def _how_it_left(context: RequestContext) -> Outcome:
    if context.exchange.stalled:
        return Outcome.CLIENT_STALLED
    return Outcome.CLIENT_DISCONNECTED

"""The ASGI call of one request: its nursery, its disconnect, its records.

Quart's own adapter is replaced by the means it offers (`asgi_http_class`), because the
permit, the registry entry and the outcome of a stream must be released by something
that encloses the whole call: a response body is not entered when a cancel lands early.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import trio
from loguru import logger
from quart import Response
from quart.wrappers.request import Body
from quart_trio.asgi import TrioASGIHTTPConnection

from trio_ai_stream.http import headers
from trio_ai_stream.http.incoming import Incoming
from trio_ai_stream.stream.outcome import Outcome

if TYPE_CHECKING:
    from trio_ai_stream.http.application import Application

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]


class StreamResponse(Response):
    """A response whose body is written by a task of its own, `run(send, self)`."""

    def __init__(self, run: Callable[[Send, StreamResponse], Awaitable[None]]) -> None:
        super().__init__(status=200)
        self.run = run
        # Without these a proxy may hold events back or compress them.
        self.headers["Cache-Control"] = "no-cache, no-transform"
        self.headers["X-Accel-Buffering"] = "no"


class Connection(TrioASGIHTTPConnection):
    """Runs one request in one nursery; its stream is closed with it."""

    app: Application

    async def __call__(self, receive: Receive, send: Send) -> None:
        """Handle the request; ends early when the client goes away."""
        services = self.app.services
        scope = cast("dict[str, Any]", self.scope)
        incoming = Incoming.enter(scope, services.request_ids)
        with logger.contextualize(request_id=incoming.request_id):
            logger.debug(
                "request started",
                event="request_started",
                method=self.scope["method"],
                path=self.scope["path"],
                http_version=self.scope["http_version"],
            )
            end = Outcome.CLIENT_DISCONNECTED

            async def send_complete(message: Any) -> None:
                if message["type"] == "http.response.start":
                    headers.complete(message["headers"], incoming)
                await send(message)

            try:
                async with trio.open_nursery() as nursery:
                    await self._answer(nursery, incoming, receive, send_complete)
                    nursery.cancel_scope.cancel(reason="response sent")
            except Exception:
                end = Outcome.INTERNAL_ERROR
                raise
            finally:
                draining = services.registry.draining.is_set()
                if draining and end is not Outcome.INTERNAL_ERROR:
                    end = Outcome.SHUTDOWN
                services.request_ids.discard(incoming.request_id)
                if incoming.stream is not None:
                    incoming.stream.close(outcome=end)
                self._log_end(incoming)

    async def _listen(
        self, nursery: trio.Nursery, incoming: Incoming, body: Body, receive: Receive
    ) -> None:
        """Feed the request's body, then wait for the client to go away."""
        while (message := await receive())["type"] == "http.request":
            body.append(message["body"])
            if not message["more_body"]:
                body.set_complete()
        stalled = incoming.exchange.stalled
        outcome = Outcome.CLIENT_STALLED if stalled else Outcome.CLIENT_DISCONNECTED
        if incoming.stream is not None:
            incoming.stream.end(outcome)
        nursery.cancel_scope.cancel(reason=outcome.value)

    async def _answer(
        self, nursery: trio.Nursery, incoming: Incoming, receive: Receive, send: Send
    ) -> None:
        request = self._create_request_from_scope(send)
        nursery.start_soon(self._listen, nursery, incoming, request.body, receive)
        response = await self.app.handle_request(request)
        del request  # a stream outlives what Quart made of its request
        if isinstance(response, StreamResponse):
            await response.run(send, response)
        else:
            incoming.status = response.status_code
            await self._send_response(send, response)

    def _log_end(self, incoming: Incoming) -> None:
        logger.info(
            "request ended",
            event="request_ended",
            method=self.scope["method"],
            path=self.scope["path"],
            http_version=self.scope["http_version"],
            status=incoming.status,
            client=incoming.client_id or None,
            duration_ms=round(1000 * (trio.current_time() - incoming.began_at), 3),
        )

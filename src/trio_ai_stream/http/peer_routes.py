"""What other processes of this deployment may ask this one: to read its streams.

It is the same question with the same answers as a client's, and nothing else is served
here. Whoever asks needs the stream's token, and where keys are on the client's key; so
who reaches this listener without being a peer gains nothing. The request has been
counted where it came in, and is not counted again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from quart import Response, request
from quart_trio import QuartTrio

from trio_ai_stream.http import errors
from trio_ai_stream.http.application import ASGIConnection
from trio_ai_stream.http.auth import check_client
from trio_ai_stream.http.peer_reader import OWNER_GONE, PEERS, read_at
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.resume_routes import NOT_RESUMABLE, read_after, read_here
from trio_ai_stream.http.services import Services
from trio_ai_stream.resume.resumables import Resumables
from trio_ai_stream.wire.problems import Refused


def peer_app(services: Services) -> Callable[..., Awaitable[None]]:
    """Return the ASGI application of the listeners for other processes."""
    app = QuartTrio("trio_ai_stream")
    app.config["RESPONSE_TIMEOUT"] = None  # the server bounds it
    app.url_map.merge_slashes = False
    respond = partial(errors.respond, metrics=services.metrics)
    errors.register(app, respond)

    @app.get(f"{PEERS}/streams/<request_id>/events")
    async def events(request_id: str) -> Response:
        """Go on with a stream of this process, or of another worker of this host."""
        token = request.args.get("token", "")
        owner = Resumables.owner_of(token)
        is_here = owner == services.resumables.process
        # A port is shared by the workers of a host; a Unix socket is its worker's own.
        address = None if owner is None else services.directory.address_here(owner)
        after = 0 if is_here else read_after()
        if address is None and not is_here:
            raise Refused(OWNER_GONE)
        # After what needs no key, and with the answer of a wrong token: requests are
        # not counted here, so nobody is to learn whether a key is right.
        if check_client(services, RequestContext.current()) is not None:
            raise Refused(NOT_RESUMABLE)
        if is_here or address is None:
            return read_here(services, request_id, token)
        return await read_at(services, address, request_id, token, after)

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await ASGIConnection(app, scope, services, _through_quart, respond)(
            receive, send
        )

    return serve


def _through_quart(_context: RequestContext) -> None:
    """Say that no endpoint is called directly."""

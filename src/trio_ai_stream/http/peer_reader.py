"""A reader that came to another process than the one that has its stream.

That process is asked what the client asked, and its answer is passed on block for
block: a client that does not read, or leaves, is one to it as well.
"""

from __future__ import annotations

from functools import partial
from typing import Final
from urllib.parse import quote, urlencode

import trio
from loguru import logger
from quart import Response, request

from trio_ai_stream.admission.directory import Address
from trio_ai_stream.http.endpoint import StreamResponse
from trio_ai_stream.http.http_responses import ASGIWriter, Headers, Send
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.resumable_run import GRACE, RESUME, resume_path
from trio_ai_stream.http.services import Services
from trio_ai_stream.http.streams import STREAMS_UNAVAILABLE
from trio_ai_stream.upstream.peer_link import (
    PeerGoneError,
    PeerLostError,
    PeerResponse,
)
from trio_ai_stream.wire.problems import Problem, Refused
from trio_ai_stream.wire.record import Outcome

OWNER_GONE: Final = Problem(
    410,
    "stream_gone",
    "the process that had this stream has ended; send the request again",
)
# An error's document is there at once; a stream of events is of any length.
_LONGEST: Final = 65_536
DOCUMENT_S: Final = 2.0
SPARE_S: Final = 5.0
# The answers that `resume_routes.py` gives, but for errors.
_KINDS: Final = {200: "text/event-stream", 204: "text/html"}
# Below it the listener for peers serves, and no other: no request can go in a circle.
PEERS: Final = "/peers"
_KEY_FIELDS: Final = (b"authorization", b"x-api-key")
_PASSED: Final = ("content-type", "retry-after")


class PeerReader:
    """One request to the owner, for as long as the client's own lives."""

    def __init__(self, response: PeerResponse) -> None:
        self.response = response
        self.left = False

    def end(self, _outcome: Outcome) -> None:
        """Leave the owner, which detaches its stream; synchronous and idempotent."""
        self.left = True
        self.response.close()

    def close(self, *, outcome: Outcome) -> None:
        """Leave the owner, if that has not been done: the request is over."""
        self.end(outcome)


async def read_at(
    services: Services, address: Address, request_id: str, token: str, after: int
) -> Response:
    """Return the answer of the process at `address`.

    :raises Refused: 410, it is gone; 503, it gave no answer.
    """
    context = RequestContext.current()
    query = urlencode({"token": token, "after": after})
    target = f"{PEERS}/streams/{quote(request_id, safe='')}/events?{query}"
    # Whoever has a stream says something, or ends it, within the longer of its budgets.
    silent_s = max(services.budgets.first_token_s, services.budgets.idle_s) + SPARE_S
    headers = [("X-Request-ID", context.request_id)]
    if services.settings.keys_required:  # one of ours, so it is plain ASCII
        headers += [
            (name.decode("ascii"), value)
            for name in _KEY_FIELDS
            for value in context.fields(name)
        ]
    try:
        response = await services.peers.ask(
            address, request.method, target, headers, silent_s=silent_s
        )
    except PeerGoneError as exc:
        raise Refused(OWNER_GONE) from exc
    except PeerLostError as exc:
        logger.warning(
            "the process that has a stream did not answer its reader",
            event="peer_lost",
            cause=str(exc),
        )
        raise Refused(STREAMS_UNAVAILABLE) from exc
    context.stream = reader = PeerReader(response)
    kind = response.field(b"content-type").partition(";")[0]
    if kind != _KINDS.get(response.status, "application/json"):
        raise Refused(STREAMS_UNAVAILABLE)  # it is no process of this deployment
    if response.status == 200 and request.method != "HEAD":
        path = resume_path(context, request_id, token)
        return StreamResponse(partial(_pass_on, reader, path, context))
    try:
        with trio.fail_after(DOCUMENT_S):
            answer = Response(await _document(response), response.status)
    except (PeerLostError, trio.TooSlowError) as exc:
        raise Refused(STREAMS_UNAVAILABLE) from exc
    for name in _PASSED:
        if said := response.field(name.encode("ascii")):
            answer.headers[name] = said
    return answer


async def _document(response: PeerResponse) -> bytes:
    """Return what the owner refuses with, and no more of it than that may be."""
    parts, size = [], 0
    while size < _LONGEST and (block := await response.receive()):
        parts.append(block)
        size += len(block)
    return b"".join(parts)


async def _pass_on(
    reader: PeerReader, path: bytes, context: RequestContext, send: Send, more: Headers
) -> None:
    """Write what the owner writes. Without its end, there is none for the client.

    *Cancellation:* the owner is left.
    """
    response = reader.response
    said = [(GRACE, response.field(GRACE).encode("latin-1")), (RESUME, path)]
    writer = ASGIWriter(send, [*more, *said], context)
    content_type = response.field(b"content-type")
    await writer.start(status=200, content_type=content_type)
    try:
        while block := await response.receive():
            await writer.write(block)
    except PeerLostError as exc:
        if reader.left:  # by its client
            return
        logger.warning(
            "the process that has a stream was lost while it was read from there",
            event="peer_lost",
            cause=str(exc),
        )
        return
    await writer.finish()

"""`GET /streams/{id}/events`: where a client comes back to its stream.

The token is needed, and where keys are on a key that may see the stream. Whatever is
wrong with them is answered alike: 404. A token names the process that has the stream.
If that is another one, it is asked what the client asked, and its answer is passed on
block for block: a client that does not read, or leaves, is one to it as well.

Processes ask each other below `PEERS`, where nothing else is served. Whoever asks there
needs the same token and key, so who reaches that listener without being a peer gains
nothing. A request is counted where it came in, and not again.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final
from urllib.parse import quote, urlencode

import trio
from loguru import logger
from quart import Blueprint, Response, request

from trio_ai_stream.admission.directory import Address, DirectoryUnavailableError
from trio_ai_stream.http.auth import check_client, visible_owner
from trio_ai_stream.http.endpoint import StreamResponse
from trio_ai_stream.http.http_responses import ASGIWriter, Headers, Send
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.resumable_run import GRACE, RESUME, read, resume_path
from trio_ai_stream.http.services import Services
from trio_ai_stream.http.streams import STREAMS_UNAVAILABLE
from trio_ai_stream.resume.resumable import Resumable
from trio_ai_stream.resume.resumables import Resumables
from trio_ai_stream.upstream.peer_link import (
    PeerGoneError,
    PeerLostError,
    PeerResponse,
)
from trio_ai_stream.wire.dialect import CONTENT_TYPE
from trio_ai_stream.wire.problems import Problem, Refused, invalid
from trio_ai_stream.wire.record import Outcome

NOT_RESUMABLE: Final = Problem(
    404,
    "not_found",
    "there is no stream with this id and token to come back to; it may have ended",
)
EVICTED: Final = Problem(
    410, "events_gone", "the events after this id are gone; send the request again"
)
OWNER_GONE: Final = Problem(
    410,
    "stream_gone",
    "the process that had this stream has ended; send the request again",
)
_ID: Final = re.compile(r"[0-9]{1,15}")
# An error's document is there at once; a stream of events is of any length.
_LONGEST: Final = 65_536
DOCUMENT_S: Final = 2.0
SPARE_S: Final = 5.0
# The answers that `read_here` gives, but for errors.
_KINDS: Final = {200: "text/event-stream", 204: "text/html"}
# Below it the listener for peers serves, and no other: no request can go in a circle.
PEERS: Final = "/peers"
_KEY_FIELDS: Final = (b"authorization", b"x-api-key")
_PASSED: Final = ("content-type", "retry-after")


def resume_blueprint(services: Services) -> Blueprint:
    """Return the blueprint of the endpoint that clients ask."""
    blueprint = Blueprint("resume", __name__)

    @blueprint.get("/streams/<request_id>/events")
    async def events(request_id: str) -> Response:
        """Go on with a stream that was begun with `X-Stream-Grace`."""
        token = request.args.get("token", "")
        owner = Resumables.owner_of(token)
        if owner is None or owner == services.resumables.process:
            return read_here(services, request_id, token)
        after = read_after()
        try:
            address = await services.directory.address_of(owner)
        except DirectoryUnavailableError as exc:
            raise Refused(STREAMS_UNAVAILABLE) from exc
        if address is None:
            raise Refused(OWNER_GONE)
        return await read_at(services, address, request_id, token, after)

    return blueprint


def peers_blueprint(services: Services) -> Blueprint:
    """Return the blueprint of the endpoint that other processes ask."""
    blueprint = Blueprint("peers", __name__)

    @blueprint.get(f"{PEERS}/streams/<request_id>/events")
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

    return blueprint


def read_here(services: Services, request_id: str, token: str) -> Response:
    """Return the answer to a reader of a stream of this process; synchronous.

    :raises Refused: 400, 404 or 410.
    """
    resumable = services.resumables.find(request_id, token)
    if resumable is None or not _may_see(services, resumable):
        raise Refused(NOT_RESUMABLE)
    after = read_after()
    log = resumable.log
    if after < log.first - 1:
        raise Refused(EVICTED)
    if after >= log.last and resumable.ended and resumable.refusal is None:
        return Response("", 204)
    if after > log.last:
        raise invalid("after", f"expected at most {log.last}, got {after}")
    if request.method == "HEAD":
        return Response("", content_type=CONTENT_TYPE)
    context = RequestContext.current()
    context.stream = attachment = services.resumables.resume(resumable, after)
    return StreamResponse(partial(read, attachment, context=context))


def _may_see(services: Services, resumable: Resumable) -> bool:
    """Whether the caller's key is right; without keys the token says it all."""
    if not services.settings.keys_required:
        return True
    return visible_owner() in {None, resumable.stream.owner}


def read_after() -> int:
    """Return the id that the client has had last; what `EventSource` says wins.

    :raises Refused: 400; it is no id.
    """
    said = request.headers.get("Last-Event-ID") or request.args.get("after") or "0"
    if not _ID.fullmatch(said):
        message = f"expected the id of an event, got {said[:32]!r}"
        raise invalid("Last-Event-ID, or after", message)
    return int(said)


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

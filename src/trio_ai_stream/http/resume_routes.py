"""`GET /streams/{id}/events`: where a client comes back to its stream.

The token is needed, and where keys are on a key that may see the stream. Whatever is
wrong with them is answered alike: 404. A token names the process that has the stream;
if that is another one, it is asked (`peer_reader.py`).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from quart import Blueprint, Response, request

from trio_ai_stream.admission.directory import DirectoryUnavailableError
from trio_ai_stream.http.auth import visible_owner
from trio_ai_stream.http.endpoint import StreamResponse
from trio_ai_stream.http.peer_reader import OWNER_GONE, read_at
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.resumable_run import read
from trio_ai_stream.http.services import Services
from trio_ai_stream.http.streams import STREAMS_UNAVAILABLE
from trio_ai_stream.resume.resumable import Resumable
from trio_ai_stream.resume.resumables import Resumables
from trio_ai_stream.wire.dialect import CONTENT_TYPE
from trio_ai_stream.wire.problems import Problem, Refused, invalid

NOT_RESUMABLE: Final = Problem(
    404,
    "not_found",
    "there is no stream with this id and token to come back to; it may have ended",
)
EVICTED: Final = Problem(
    410, "events_gone", "the events after this id are gone; send the request again"
)
_ID: Final = re.compile(r"[0-9]{1,15}")


def resume_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with the endpoint."""
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

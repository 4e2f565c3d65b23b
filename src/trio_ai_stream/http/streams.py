"""`/streams`: the live streams as things to look at and to cancel.

A key sees and cancels its own streams, an operator's key all; without keys the client's
address is the owner. What the caller may not see is not there: 404, not 403.
"""

from __future__ import annotations

from typing import Final

import msgspec
from quart import Blueprint, Response

from trio_ai_stream.admission.directory import DirectoryUnavailableError
from trio_ai_stream.http.auth import visible_owner
from trio_ai_stream.http.http_responses import json_response
from trio_ai_stream.http.services import Services
from trio_ai_stream.wire.problems import Fault, Problem, Refused

NO_STREAM: Final = Problem(404, "not_found", "there is no live stream of this id")
STREAMS_UNAVAILABLE: Final = Problem(
    503,
    "streams_unavailable",
    "the process that has this stream, if any does, did not answer in time",
    Fault.SERVER,
    retryable=True,
    retry_after=1,
)


def streams_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with `GET /streams` and `DELETE /streams/{request_id}`."""
    blueprint = Blueprint("streams", __name__)
    directory = services.directory

    @blueprint.get("/streams")
    async def streams() -> Response:
        """List the live streams that the caller may see: its own, or all.

        `complete` is false if a process did not answer in time.
        """
        listing = await directory.list_streams(visible_owner())
        document = {"streams": listing.entries, "complete": listing.complete}
        return json_response(msgspec.json.encode(document))

    @blueprint.delete("/streams/<request_id>")
    async def cancel(request_id: str) -> Response:
        """Cancel a live stream; its own client gets an error, type `cancelled`."""
        try:
            cancelled = await directory.cancel(request_id, visible_owner())
        except DirectoryUnavailableError as exc:
            raise Refused(STREAMS_UNAVAILABLE) from exc
        if cancelled is None:
            raise Refused(NO_STREAM)
        return json_response(msgspec.json.encode(cancelled))

    return blueprint

"""`/streams`: the live streams as things to look at and to cancel.

A key sees and cancels its own streams, an operator's key all; without keys the client's
address is the owner. What the caller may not see is not there: 404, not 403.
"""

from __future__ import annotations

import trio
from quart import Blueprint, Response
from quart_schema import document_response

from trio_ai_stream.http.keys import whose_streams
from trio_ai_stream.http.responses import json_response
from trio_ai_stream.http.services import Services
from trio_ai_stream.stream.outcome import Outcome
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.documents import Cancellation, StreamDocument, StreamList
from trio_ai_stream.wire.problems import Problem, Refused

NO_STREAM = Problem(404, "not_found", "there is no live stream of this id")


def streams_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with `GET /streams` and `DELETE /streams/{request_id}`."""
    blueprint = Blueprint("streams", __name__)
    registry = services.registry

    @blueprint.get("/streams")
    @document_response(StreamList)
    async def streams() -> Response:
        """List the live streams that the caller may see: its own, or all."""
        sees = whose_streams()
        seen = [describe(stream) for stream in registry if sees(stream.owner)]
        return json_response(StreamList(seen))

    @blueprint.delete("/streams/<request_id>")
    @document_response(Cancellation)
    async def cancel(request_id: str) -> Response:
        """Cancel a live stream; its own client gets an error, type `cancelled`."""
        stream = registry.get(request_id)
        if stream is None or not whose_streams()(stream.owner):
            raise Refused(NO_STREAM)
        return json_response(cancel_stream(stream))

    return blueprint


def describe(stream: Stream) -> StreamDocument:
    """Return what is to be seen of a stream now."""
    first = stream.first_content_at
    return StreamDocument(
        id=stream.request_id,
        client=stream.owner,
        model=stream.call.model,
        endpoint=stream.endpoint,
        state=stream.state.value,
        age_s=round(trio.current_time() - stream.began_at, 3),
        first_content_s=None if first is None else round(first - stream.began_at, 3),
        attempts=stream.attempts,
        events=stream.events,
        bytes=stream.bytes_out,
        outcome=None if stream.ending is None else stream.ending.outcome.value,
    )


def cancel_stream(stream: Stream) -> Cancellation:
    """Cancel a stream; one that is ending already keeps its outcome."""
    state = stream.state
    stream.stop(Outcome.CANCELLED, detail="DELETE /streams")
    assert stream.ending is not None
    closed_at = stream.upstream_closed_at
    return Cancellation(
        id=stream.request_id,
        outcome=stream.ending.outcome.value,
        state=state.value,
        events=stream.events,
        upstream_closed_ms=(
            None
            if closed_at is None
            else round(1000 * (closed_at - stream.ending.at), 3)
        ),
    )

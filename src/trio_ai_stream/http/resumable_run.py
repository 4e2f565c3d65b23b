"""A stream with a grace, as one request has it: begun, or come back to."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import quote

from trio_ai_stream.http.http_responses import JSON, ASGIWriter, Headers, Send
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.services import Services
from trio_ai_stream.resume.resumable import Attachment, Resumable
from trio_ai_stream.stream.relay import relay
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.dialect import CONTENT_TYPE, EventEncoder

GRACE: Final = b"x-stream-grace"
RESUME: Final = b"x-stream-resume"


@dataclass(frozen=True, slots=True)
class ResumableRun:
    """A stream that has been admitted, ready to be begun in a task of its own."""

    services: Services
    context: RequestContext
    stream: Stream
    encoder: EventEncoder
    grace_s: float

    def __call__(self, send: Send, headers: Headers) -> Awaitable[None]:
        """Begin the stream, and let the request be its reader."""
        services, context, stream = self.services, self.context, self.stream
        assert services.upstream is not None
        run = partial(
            relay,
            stream,
            services.upstream,
            timer_queue=services.timer_queue,
            retries=services.retries,
        )
        # The id stays taken for as long as the stream can be asked for by it.
        context.keeps_id = True
        forget = partial(services.request_ids.discard, context.request_id)
        # No checkpoint from the admission on, where the server itself says that the
        # client is gone: the stream is this request's, or it is resumable.
        context.stream = services.resumables.begin(
            stream, self.encoder, run, grace_s=self.grace_s, on_forgotten=forget
        )
        return read(context.stream, send, headers, context)


async def read(
    attachment: Attachment, send: Send, headers: Headers, context: RequestContext
) -> None:
    """Write what the stream's log has for this reader, to its end.

    *Cancellation:* the client is gone; the stream goes on.
    """
    said = grace_headers(attachment.resumable, context)
    writer = ASGIWriter(send, [*headers, *said], context)
    refusal = await attachment.begun()
    if refusal is not None:
        status, more, data = refusal
        await writer.start(status=status, content_type=JSON, more=more)
    else:
        await writer.start(
            status=200, content_type=CONTENT_TYPE, body_follows=attachment.behind
        )
        data = await attachment.receive()
        while not attachment.over:
            await writer.write(data)
            attachment.written()
            data = await attachment.receive()
    attachment.finish(told=await writer.finish(data))


def grace_headers(resumable: Resumable, context: RequestContext) -> Headers:
    """Return what tells a client of its grace, and where it comes back to."""
    path = resume_path(context, resumable.stream.request_id, resumable.token)
    return [(GRACE, b"%g" % resumable.grace_s), (RESUME, path)]


def resume_path(context: RequestContext, request_id: str, token: str) -> bytes:
    """Return where a client of this request's comes back to its stream."""
    root = context.scope.get("root_path", "")
    path = f"{root}/streams/{quote(request_id)}/events?token={token}"
    return path.encode("ascii", "ignore")

"""`POST /v1/chat/completions`: what OpenAI's SDKs and their many likes speak."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Awaitable

from trio_ai_stream.http.admit import admit_stream
from trio_ai_stream.http.endpoint import Endpoint, Run
from trio_ai_stream.http.http_responses import Headers
from trio_ai_stream.http.openai_clients import DocumentClient, EventClient
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.services import Services
from trio_ai_stream.http.writer import Send, Writer
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.stream.relay import relay
from trio_ai_stream.wire.openai_requests import parse_completion

PATH = "/v1/chat/completions"


def completions_endpoint(services: Services) -> Endpoint:
    """Return the endpoint of `POST /v1/chat/completions`."""
    # A whole answer is its own first content, however long the model takes over it: so
    # only the deadline bounds it.
    whole_budgets = dataclasses.replace(services.budgets, first_token_s=math.inf)

    async def completions(context: RequestContext, body: bytes) -> Run:
        """Complete a chat, as OpenAI's API does it.

        Headers that are not named here reach upstream unchanged.
        """
        settings = services.settings
        completion = parse_completion(
            body,
            default_model=settings.OPENROUTER_MODEL,
            max_messages_length=settings.MAX_MESSAGES_LENGTH,
        )
        call = UpstreamRequest(
            context.request_id,
            completion.model,
            completion.body,
            raw=True,
            whole=not completion.stream,
            choices=completion.choices,
            trace=context.trace,
        )
        upstream = services.upstream
        assert upstream is not None
        budgets = services.budgets if completion.stream else whole_budgets
        stream = await admit_stream(
            services, context, call, endpoint=PATH, budgets=budgets
        )

        def run(send: Send, fields: Headers) -> Awaitable[None]:
            writer = Writer(send, fields, context)
            client = (
                EventClient(writer, call)
                if completion.stream
                else DocumentClient(writer)
            )
            return relay(
                stream, upstream, client, services.timer_queue, services.retries
            )

        return run

    return Endpoint(PATH, completions)

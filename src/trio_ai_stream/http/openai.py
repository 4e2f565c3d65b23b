"""`POST /v1/chat/completions`: what OpenAI's SDKs and their many likes speak."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Awaitable

from trio_ai_stream.http.admission import admit_stream
from trio_ai_stream.http.endpoint import Endpoint, Run
from trio_ai_stream.http.headers import Fields
from trio_ai_stream.http.incoming import Incoming
from trio_ai_stream.http.openai_clients import DocumentClient, EventClient
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

    async def completions(incoming: Incoming, body: bytes) -> Run:
        """Complete a chat, as OpenAI's API does it.

        Fields that are not named here reach upstream unchanged.
        """
        settings = services.settings
        completion = parse_completion(
            body,
            default_model=settings.OPENROUTER_MODEL,
            max_messages_length=settings.MAX_MESSAGES_LENGTH,
        )
        call = UpstreamRequest(
            incoming.request_id,
            completion.model,
            completion.body,
            raw=True,
            whole=not completion.stream,
            choices=completion.choices,
            trace=incoming.trace,
        )
        upstream = services.upstream
        assert upstream is not None
        budgets = services.budgets if completion.stream else whole_budgets
        stream = await admit_stream(
            services, incoming, call, endpoint=PATH, budgets=budgets
        )

        def run(send: Send, fields: Fields) -> Awaitable[None]:
            writer = Writer(send, fields, incoming)
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

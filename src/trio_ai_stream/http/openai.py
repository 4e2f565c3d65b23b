"""`POST /v1/chat/completions`: what OpenAI's SDKs and their many likes speak."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

from trio_ai_stream.http.admit import admit_stream
from trio_ai_stream.http.endpoint import Endpoint, MakeResponder, StreamRun
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.responder import OpenAIDocumentResponder, OpenAIResponder
from trio_ai_stream.http.services import Services
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.wire.openai_requests import parse_completion


class CompletionsEndpoint(Endpoint):
    """Completes a chat: as a stream of upstream's chunks, or as one document."""

    name = "completions"
    path = "/v1/chat/completions"

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        # A whole answer is its own first content, however long the model takes over it:
        # so only the deadline bounds it.
        self._document_budgets = dataclasses.replace(
            services.budgets, first_token_s=math.inf
        )

    async def open(self, context: RequestContext, body: bytes) -> StreamRun:
        """Complete a chat, as OpenAI's API does it.

        Fields that are not named here reach upstream unchanged.
        """
        services = self.services
        settings = services.settings
        completion = parse_completion(
            body,
            default_model=settings.OPENROUTER_MODEL,
            max_messages_length=settings.MAX_MESSAGES_LENGTH,
        )
        request = UpstreamRequest(
            context.request_id,
            completion.model,
            completion.body,
            raw=True,
            whole=not completion.stream,
            choices=completion.choices,
            trace=context.trace,
            prompt_chars=completion.prompt_chars,
            user=completion.user,
        )
        respond: MakeResponder = OpenAIDocumentResponder
        budgets = self._document_budgets
        if completion.stream:
            respond = partial(OpenAIResponder, model=completion.model)
            budgets = services.budgets
        stream = await admit_stream(
            services, context, request, endpoint=self.path, budgets=budgets
        )
        return StreamRun(services, context, stream, respond)

"""`/chat`: the original Go server's API, over upstream's chat completions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from trio_ai_stream.upstream.chunks import (
    items_of_document,
    items_of_unstreamed,
    read_chunks,
)
from trio_ai_stream.wire.dialect import (
    Dialect,
    ErrorResponse,
    ParsedRequest,
    RequestLimits,
)
from trio_ai_stream.wire.documents import ErrorDocument
from trio_ai_stream.wire.problems import Problem
from trio_ai_stream.wire.requests import parse_chat_request
from trio_ai_stream.wire.sse import ChatEncoder


def parse(body: bytes, limits: RequestLimits) -> ParsedRequest:
    """Return the request for one `POST /chat`; what is left out stays out.

    :raises Refused: 400 or 413, naming the field.
    """
    request = parse_chat_request(
        body,
        max_prompt_length=limits.max_prompt_length,
        max_messages_length=limits.max_messages_length,
    )
    model = request.model or limits.default_model
    fields: dict[str, Any] = {
        "model": model,
        "messages": request.conversation(),
        "stream": True,
    }
    for name in ("temperature", "top_p", "max_tokens", "stop", "seed"):
        if (value := getattr(request, name)) is not None:
            fields[name] = value
    if request.user is not None:
        fields["user"] = request.user
    reasoning = bool(request.include_reasoning)
    if reasoning:
        fields["include_reasoning"] = True
    return ParsedRequest(
        model,
        True,
        msgspec.json.encode(fields),
        reasoning=reasoning,
        tool_calls=bool(request.include_tool_calls),
        prompt_chars=sum(len(one.content) for one in request.conversation()),
        user=request.user,
    )


def encoder(asked: ParsedRequest, request_id: str, upstream: str) -> ChatEncoder:
    """Return the encoder of one stream; its first event names model and upstream."""
    made = ChatEncoder(
        request_id,
        include_reasoning=asked.reasoning,
        include_tool_calls=asked.tool_calls,
    )
    made.opening = made.connected(model=asked.model, upstream=upstream)
    return made


def error(problem: Problem, request_id: str) -> ErrorResponse:
    """Return a refusal as the original Go server writes it."""
    document = ErrorDocument(
        message=problem.message,
        code=problem.status,
        error_type=problem.error_type,
        request_id=request_id,
        timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    retry_after = problem.retry_after_header
    headers = [] if retry_after is None else [("Retry-After", retry_after)]
    return ErrorResponse(problem.status, headers, msgspec.json.encode(document))


PLAIN_CHAT: Final = Dialect(
    path="/chat",
    upstream_path="/chat/completions",
    raw=False,
    parse=parse,
    read_events=read_chunks,
    read_document=items_of_document,
    read_unstreamed=items_of_unstreamed,
    encoder=encoder,
    error=error,
)

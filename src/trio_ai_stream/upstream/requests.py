"""What is asked of OpenRouter for one request of our client's; pure."""

from __future__ import annotations

from typing import Any

import msgspec

from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.wire.requests import ChatRequest


def chat_call(
    request: ChatRequest,
    *,
    request_id: str,
    default_model: str,
    trace: tuple[tuple[bytes, bytes], ...] = (),
) -> UpstreamRequest:
    """Return the call for one `POST /chat`; what is left out stays out."""
    model = request.model or default_model
    body: dict[str, Any] = {
        "model": model,
        "messages": request.conversation(),
        "stream": True,
    }
    for name in ("temperature", "top_p", "max_tokens", "stop", "seed"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.include_reasoning:
        body["include_reasoning"] = True
    return UpstreamRequest(request_id, model, msgspec.json.encode(body), trace=trace)

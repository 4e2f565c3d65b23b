"""All dialects, and to which of them a path belongs."""

from __future__ import annotations

from typing import Final

from trio_ai_stream.dialects.agent_responses import RESPONSES
from trio_ai_stream.dialects.completions import COMPLETIONS
from trio_ai_stream.dialects.messages import COUNT_TOKENS, MESSAGES
from trio_ai_stream.dialects.plain_chat import PLAIN_CHAT
from trio_ai_stream.wire.dialect import Dialect

DIALECTS: Final = (PLAIN_CHAT, COMPLETIONS, MESSAGES, COUNT_TOKENS, RESPONSES)


def dialect_of(path: str) -> Dialect:
    """Return the dialect whose clients ask for a path.

    Where none has it, nor a path above it: OpenAI's below `/v1`, else that of `/chat`.
    """
    for dialect in DIALECTS:
        if path == dialect.path or path.startswith(f"{dialect.path}/"):
            return dialect
    return COMPLETIONS if path.startswith("/v1/") else PLAIN_CHAT

"""Status and headers of a refusal, as the SDKs of the `/v1` APIs act on them; pure.

The status is the one that upstream gave, because clients act on it, with one exception:
upstream's 401 is about this server's key, and a client that saw it would take its own
key for bad. It is told 502, and not to retry.
"""

from __future__ import annotations

from typing import Final

from trio_ai_stream.wire.problems import Problem

SHOULD_RETRY: Final = "X-Should-Retry"
# OpenRouter's own request fields that a client may set (its API reference, "Headers",
# "App Attribution", "Router Metadata" and "Response Caching").
OPENROUTER_FIELDS: Final = frozenset(
    {
        b"http-referer",
        b"x-title",
        b"x-openrouter-title",
        b"x-openrouter-categories",
        b"x-openrouter-metadata",
        b"x-openrouter-experimental-metadata",
        b"x-openrouter-cache",
        b"x-session-id",
    }
)


def status_of(problem: Problem) -> int:
    """Return the HTTP status of a problem: upstream's own, if upstream refused."""
    upstream = problem.upstream_status
    return problem.status if upstream in {None, 401} else upstream or problem.status


def error_headers(problem: Problem) -> list[tuple[str, str]]:
    """Return what tells a client whether and when to try again.

    OpenAI's SDKs retry by status unless `x-should-retry` says otherwise (`openai`
    3.54, `_base_client.py`), and so do Anthropic's. After tries of our own it says that
    they should not: three of theirs for each three of ours would be nine.
    """
    again = problem.retryable and not problem.spent
    headers = [(SHOULD_RETRY, "true" if again else "false")]
    if (retry_after := problem.retry_after_header) is not None:
        headers.append(("Retry-After", retry_after))
    return headers

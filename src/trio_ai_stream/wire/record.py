"""How a stream ended, what it cost, and what is recorded of it, once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from trio_ai_stream.wire.problems import Fault

# More than any model reads or writes; upstream's number is not to be trusted further.
MAX_TOKENS: Final = 10**9
MAX_USD: Final = 1e6
_CACHE_READ: Final = "cache_read_input_tokens"
_DECIMAL: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")
_PROVIDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.:/()-]{0,63}")


class Basis(StrEnum):
    """How a bill is known; a closed set, in every record of a stream.

    `exact`: upstream said it in the stream. `reconciled`: upstream was asked
    afterwards. `estimated`: counted from what passed. `none`: upstream gave no answer
    that could cost anything.
    """

    EXACT = "exact"
    RECONCILED = "reconciled"
    ESTIMATED = "estimated"
    NONE = "none"


class Bill(msgspec.Struct, frozen=True):
    """One stream's bill; a number that nobody said is None.

    Reasoning is part of the completion, cached tokens are part of the prompt.
    `tokens_after_close` is what was billed beyond what had been relayed when a stream
    ended early.
    """

    basis: Basis = Basis.NONE
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: float | None = None
    provider: str | None = None
    tokens_after_close: int | None = None

    def fields(self) -> dict[str, Any]:
        """Return what the log and the views say of it; `usage` is the basis."""
        return {
            "usage": self.basis.value,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cached_tokens": self.cached_tokens,
            "cost_usd": self.cost_usd,
            "provider": self.provider,
            "tokens_after_close": self.tokens_after_close,
        }


def exact_bill(usage: Mapping[str, Any], provider: str | None) -> Bill:
    """Read a usage object, in the words of chat completions or of the newer APIs.

    `prompt_tokens` is `input_tokens`, `completion_tokens` is `output_tokens` there
    (Messages, Responses). Anthropic's `input_tokens` leave out what is read from the
    cache or written to it, so that is added.
    """
    prompt = _part(usage, "prompt_tokens_details", "input_tokens_details")
    completion = _part(usage, "completion_tokens_details", "output_tokens_details")
    cached = _first_count({**usage, **prompt}, "cached_tokens", _CACHE_READ)
    tokens = _first_count(usage, "prompt_tokens", "input_tokens")
    if tokens is not None and _count(usage.get("prompt_tokens")) is None:
        beside = (_CACHE_READ, "cache_creation_input_tokens")
        tokens += sum(_count(usage.get(name)) or 0 for name in beside)
    return Bill(
        Basis.EXACT,
        tokens,
        _first_count(usage, "completion_tokens", "output_tokens"),
        _count(completion.get("reasoning_tokens")),
        cached,
        _cost(usage.get("cost")),
        known_provider(provider),
    )


def reconciled_bill(generation: Mapping[str, Any]) -> Bill | None:
    """Read the `data` of `GET /generation`; None if it holds no counts.

    The native counts are those that are billed (OpenRouter docs, "Get a generation").
    """
    bill = Bill(
        Basis.RECONCILED,
        _first_count(generation, "native_tokens_prompt", "tokens_prompt"),
        _first_count(generation, "native_tokens_completion", "tokens_completion"),
        _count(generation.get("native_tokens_reasoning")),
        _count(generation.get("native_tokens_cached")),
        _cost(generation.get("total_cost")),
        known_provider(generation.get("provider_name")),
    )
    known = bill.completion_tokens is not None and bill.cost_usd is not None
    return bill if known else None


def known_provider(name: object) -> str | None:
    """Return a provider's name if it is one: a free text belongs into no log."""
    plain = isinstance(name, str) and _PROVIDER.fullmatch(name)
    return str(name) if plain else None


def _part(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    found = (usage.get(name) for name in names)
    return next((part for part in found if isinstance(part, dict)), {})


def _first_count(said: Mapping[str, Any], *names: str) -> int | None:
    """Return the first that is a count: null stands for a number nobody knows."""
    counts = (_count(said.get(name)) for name in names)
    return next((count for count in counts if count is not None), None)


def _count(value: Any) -> int | None:
    """Return a count, which the metrics add up; None for any other value."""
    if isinstance(value, float) and value.is_integer():  # as some upstreams write it
        value = int(value)
    counts = isinstance(value, int) and not isinstance(value, bool)
    return value if counts and 0 <= value < MAX_TOKENS else None


def _cost(value: Any) -> float | None:
    """Return dollars; a decimal may come as a text, as OpenRouter's prices do."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    counts = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if counts and 0 <= value < MAX_USD else None


_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Outcome(StrEnum):
    """Why a stream ended; a closed set, recorded once for each stream."""

    COMPLETED = "completed"
    CLIENT_DISCONNECTED = "client_disconnected"
    CLIENT_STALLED = "client_stalled"
    CANCELLED = "cancelled"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"  # noqa: S105  a name, no secret
    STREAM_IDLE_TIMEOUT = "stream_idle_timeout"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    UPSTREAM_REJECTED = "upstream_rejected"
    UPSTREAM_FAILED = "upstream_failed"
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal_error"
    ABANDONED = "abandoned"


def plain_word(text: str | None) -> str | None:
    """Return upstream's word if it is one: its free text does not belong into a log."""
    return text if text is not None and _WORD.fullmatch(text) else None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One ended stream. Times are in seconds; there is neither prompt nor content.

    `fault` says whose doing the end was; None if all is whole. `cancel_latency_s` is
    from the cause to the upstream connection's close, where the stream held one.
    `ending_s` is from the cause until nothing of the stream was left.
    `told` says whether the terminal event, and all before it, left this process.
    `user` is the caller's own user, as its request names it; for the ledger alone.
    Of a stream with a grace: `resumes` counts its client's returns, `detached_s` is how
    long it had no client before its end.
    """

    request_id: str
    endpoint: str
    owner: str
    model: str
    streamed: bool
    outcome: Outcome
    fault: Fault | None
    detail: str
    duration_s: float
    first_content_s: float | None
    cancel_latency_s: float | None
    attempts: int
    events: int
    blocks: int
    bytes_out: int
    told: bool
    finish_reason: str | None
    generation_id: str | None
    bill: Bill
    user: str | None
    ending_s: float
    resumes: int
    detached_s: float

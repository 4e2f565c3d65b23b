"""One stream in the ledger: ids, times, tokens and cost; neither prompt nor key."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from trio_ai_stream.wire.bill import Basis, Bill
from trio_ai_stream.wire.record import Record

NANO = 1_000_000_000
"""Costs are kept as whole billionths of a dollar, so that sums are exact."""


class LedgerRow(msgspec.Struct, frozen=True):
    """What the ledger keeps of one stream, which `uid` names for ever.

    Times are Unix seconds, durations milliseconds. `open`: its bill is still looked up;
    `worker` is the process that does.
    """

    uid: str
    worker: str
    open: bool
    ended_at: float
    request_id: str
    generation_id: str | None
    key: str
    user: str | None
    endpoint: str
    model: str
    outcome: str
    usage: Basis
    provider: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    cached_tokens: int | None
    cost_nusd: int | None
    tokens_after_close: int | None
    duration_ms: float
    first_content_ms: float | None

    @property
    def bill(self) -> Bill:
        """The bill that is known so far."""
        return Bill(
            self.usage,
            self.prompt_tokens,
            self.completion_tokens,
            self.reasoning_tokens,
            self.cached_tokens,
            None if self.cost_nusd is None else self.cost_nusd / NANO,
            self.provider,
            self.tokens_after_close,
        )

    def settled(self, bill: Bill) -> LedgerRow:
        """Return the row with its final bill."""
        return msgspec.structs.replace(self, open=False, **_columns(bill))


def row_of(record: Record, *, key: str, worker: str, ended_at: float) -> LedgerRow:
    """Return the row of an ended stream; an estimated bill is open."""
    first = record.first_content_s
    return LedgerRow(
        uid=secrets.token_hex(16),
        worker=worker,
        open=record.bill.basis is Basis.ESTIMATED,
        ended_at=ended_at,
        request_id=record.request_id,
        generation_id=record.generation_id,
        key=key,
        user=record.user,
        endpoint=record.endpoint,
        model=record.model,
        outcome=record.outcome.value,
        duration_ms=round(1000 * record.duration_s, 3),
        first_content_ms=None if first is None else round(1000 * first, 3),
        **_columns(record.bill),
    )


def _columns(bill: Bill) -> dict[str, Any]:
    cost = bill.cost_usd
    return {
        "usage": bill.basis,
        "provider": bill.provider,
        "prompt_tokens": bill.prompt_tokens,
        "completion_tokens": bill.completion_tokens,
        "reasoning_tokens": bill.reasoning_tokens,
        "cached_tokens": bill.cached_tokens,
        "cost_nusd": None if cost is None else round(cost * NANO),
        "tokens_after_close": bill.tokens_after_close,
    }

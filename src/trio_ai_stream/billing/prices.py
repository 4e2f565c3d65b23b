"""What the tokens of a model cost, by upstream's list; for estimates only."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import trio
from loguru import logger

from trio_ai_stream.stream.outcome import EndStream
from trio_ai_stream.wire.bill import Bill

FRESH_S: Final = 3600.0
FETCH_S: Final = 10.0

Get = Callable[[str], Awaitable[bytes]]
"""Fetches one document of upstream's API by its path."""


class _Listed(msgspec.Struct):
    id: str
    pricing: dict[str, Any] = {}
    canonical_slug: str | None = None


class _List(msgspec.Struct):
    data: list[_Listed]


class Prices:
    """Dollars a token, of the prompt and of the completion, by model."""

    def __init__(self) -> None:
        self._prices: dict[str, tuple[float, float]] = {}
        self._tried_at = -math.inf

    async def load(self, get: Get) -> None:
        """Fetch upstream's list if the last try is an hour old.

        What fails is logged and leaves the old list. *Cancellation:* the same.
        """
        if trio.current_time() - self._tried_at < FRESH_S:
            return
        self._tried_at = trio.current_time()
        try:
            with trio.fail_after(FETCH_S):
                body = await get("/models")
            listed = msgspec.json.decode(body, type=_List).data
        except (
            EndStream,
            trio.TooSlowError,
            msgspec.MsgspecError,
            RecursionError,
        ) as exc:
            logger.warning(
                "upstream did not list its prices; estimates have no cost",
                event="prices_failed",
                cause=str(exc)[:200],
            )
            return
        for model in listed:
            price = _price(model.pricing)
            if price is not None:
                self._prices[model.id] = price
                if model.canonical_slug:
                    self._prices.setdefault(model.canonical_slug, price)

    def cost(self, model: str, bill: Bill) -> float | None:
        """Return what an estimate comes to; None if the model is not listed.

        A variant (`:nitro`) counts as its model.
        """
        plain = model.partition(":")[0].partition("?")[0]
        price = self._prices.get(model) or self._prices.get(plain)
        if price is None:
            return None
        prompt, completion = bill.prompt_tokens or 0, bill.completion_tokens or 0
        return prompt * price[0] + completion * price[1]


def _price(pricing: dict[str, Any]) -> tuple[float, float] | None:
    try:
        price = float(pricing["prompt"]), float(pricing["completion"])
    except (KeyError, TypeError, ValueError):
        return None
    return price if all(0 <= part < 1 for part in price) else None

"""Looks up what cut streams were billed, after they have ended and off their way.

A stream that is cut has no usage. `GET /generation` has it later (404 at first is
normal), so one task of the application asks a few at a time, each after 1, 2, 4 … and
then every 60 seconds, for as long as RECONCILE_SECS. What is not known by then stays an
estimate, with the cost by upstream's list of prices.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec
import trio
from loguru import logger

from trio_ai_stream.billing.usage_database import LedgerRow
from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.wire.record import Bill, reconciled_bill

FRESH_S: Final = 3600.0
ANSWER_S: Final = 10.0

Get = Callable[[str], Awaitable[bytes]]
"""Fetches one document of upstream's API by its path."""

T = TypeVar("T")
# What `_fetch` raises: no answer (in time), or none that can be read.
_NO_DOCUMENT = (EndStream, trio.TooSlowError, ValueError, RecursionError)


async def _fetch(get: Get, path: str, kind: type[T]) -> T:
    with trio.fail_after(ANSWER_S):
        return msgspec.json.decode(await get(path), type=kind)


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
            listed = (await _fetch(get, "/models", _List)).data
        except _NO_DOCUMENT as exc:
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
        return round(prompt * price[0] + completion * price[1], 9)


def _price(pricing: dict[str, Any]) -> tuple[float, float] | None:
    try:
        price = float(pricing["prompt"]), float(pricing["completion"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return price if all(0 <= part < 1 for part in price) else None


AT_A_TIME: Final = 4
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0
MAX_OPEN: Final = 10_000
# Fewer tokens than this, or than this share of what was relayed, are within the error
# of the estimate of what was relayed: they are not called billed after the close.
MARGIN_TOKENS: Final = 16
MARGIN_SHARE: Final = 0.25

OnSettled = Callable[[LedgerRow, LedgerRow, float, int], None]
"""Is told the open row and the settled one, the seconds since it was put in, and the
look-ups made."""


class _Document(msgspec.Struct):
    data: dict[str, Any]


@dataclasses.dataclass(slots=True)
class _Lookup:
    row: LedgerRow
    began_at: float
    wait_s: float = FIRST_WAIT_S
    asked: int = 0


class Reconciler:
    """A bounded queue of open bills and the task that settles them.

    `for_s` is how long one is looked up.
    """

    def __init__(
        self, on_settled: OnSettled, *, for_s: float, limit: int = MAX_OPEN
    ) -> None:
        self._on_settled = on_settled
        self._for_s = for_s
        self._limit = limit
        self._prices = Prices()
        self._due: list[tuple[float, int, _Lookup]] = []
        self._order = itertools.count()
        self._asking = 0
        self._news = trio.Event()

    def __len__(self) -> int:
        return len(self._due) + self._asking

    def put(self, row: LedgerRow) -> bool:
        """Take an open bill; False if there is no room for it. Never waits.

        The bill of a stream whose generation nobody named can only be priced.
        """
        if len(self) >= self._limit:
            return False
        lookup = _Lookup(row, trio.current_time())
        wait_s = FIRST_WAIT_S if self._asks(row) else 0.0
        self._push(lookup, lookup.began_at + wait_s)
        return True

    async def run(self, get: Get) -> None:
        """Settle bills until cancelled; what is open then stays open in the ledger."""
        try:
            async with trio.open_nursery() as nursery:
                for number in range(AT_A_TIME):
                    name = f"reconciler {number}"
                    nursery.start_soon(self._work, get, name=name)
        finally:
            if len(self):
                logger.info(
                    "bills are open; with LEDGER_FILE the next start settles them",
                    event="bills_open",
                    open=len(self),
                )

    def _asks(self, row: LedgerRow) -> bool:
        return row.generation_id is not None and self._for_s > 0

    def _push(self, lookup: _Lookup, due: float) -> None:
        heapq.heappush(self._due, (due, next(self._order), lookup))
        self._news.set()

    async def _work(self, get: Get) -> None:
        while True:
            lookup = await self._next()
            self._asking += 1
            try:
                await self._look_up(lookup, get)
            except Exception:
                logger.exception("a bill could not be looked up", event="bill_error")
            finally:
                self._asking -= 1

    async def _next(self) -> _Lookup:
        """Wait for the next look-up that is due, and take it out."""
        while not self._due or self._due[0][0] > trio.current_time():
            if self._news.is_set():
                self._news = trio.Event()
            due = self._due[0][0] if self._due else float("inf")
            with trio.move_on_at(due):
                await self._news.wait()
        return heapq.heappop(self._due)[2]

    async def _look_up(self, lookup: _Lookup, get: Get) -> None:
        row, bill = lookup.row, None
        if self._asks(row):
            lookup.asked += 1
            bill = await _bill_of(get, row)
            ends_at = lookup.began_at + self._for_s
            if bill is None and trio.current_time() < ends_at:
                lookup.wait_s = min(2 * lookup.wait_s, LONGEST_WAIT_S)
                due = trio.current_time() + lookup.wait_s
                self._push(lookup, min(due, ends_at))
                return
        if bill is None:
            if self._for_s:
                await self._prices.load(get)
            bill, cost = row.bill, self._prices.cost(row.model, row.bill)
            if cost is not None:
                bill = msgspec.structs.replace(bill, cost_usd=cost)
        else:
            beyond = tokens_after_close(row.bill, bill)
            bill = msgspec.structs.replace(bill, tokens_after_close=beyond)
        lag_s = trio.current_time() - lookup.began_at
        self._on_settled(row, row.settled(bill), lag_s, lookup.asked)


async def _bill_of(get: Get, row: LedgerRow) -> Bill | None:
    """Ask for a generation once; None if there is no bill of it, for any reason."""
    path = f"/generation?id={quote(row.generation_id or '', safe='')}"
    try:
        data = (await _fetch(get, path, _Document)).data
    except _NO_DOCUMENT:
        return None
    if data.get("id") != row.generation_id:
        return None
    return reconciled_bill(data)


def tokens_after_close(relayed: Bill, billed: Bill) -> int:
    """Return the tokens that were billed beyond what had been relayed.

    What was relayed is an estimate, so a difference within its error counts as none.
    Reasoning that never passed was not generated after the close, if content has come.
    """
    seen = relayed.completion_tokens or 0
    hidden = 0
    if seen and not relayed.reasoning_tokens:
        hidden = billed.reasoning_tokens or 0
    beyond = (billed.completion_tokens or 0) - hidden - seen
    return beyond if beyond > max(MARGIN_TOKENS, MARGIN_SHARE * seen) else 0

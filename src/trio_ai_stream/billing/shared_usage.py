"""Sums over the streams of all hosts, out of the totals in Valkey."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import trio

from trio_ai_stream.admission.shared.outage import Unavailable
from trio_ai_stream.admission.shared.shared_gate import SharedGate
from trio_ai_stream.admission.shared.valkey_scripts import LuaScript
from trio_ai_stream.billing.usage_batch import MEASURES, NAMES, day_of
from trio_ai_stream.billing.usage_ledger import LedgerUnavailableError
from trio_ai_stream.billing.usage_report import (
    UsageQuery,
    UsageQueryError,
    in_dollars,
)

MAX_DAYS: Final = 400
_DAY: Final = timedelta(days=1)
# Which of the days hold anything, so that only they are fetched.
SIZES: Final = LuaScript(
    "sizes",
    """
local found = {}
for index = 1, #KEYS do found[index] = redis.call('HLEN', KEYS[index]) end
return found
""",
)
CELLS: Final = LuaScript("cells", "return redis.call('HGETALL', KEYS[1])")


class SharedUsage:
    """What all hosts have counted, by key, model, provider, outcome and whole day."""

    def __init__(self, gate: SharedGate, *, retention_s: float) -> None:
        self._link = gate.link
        self._prefix = gate.keys.prefix
        self._retention_s = retention_s

    async def sums(self, query: UsageQuery) -> list[dict[str, Any]]:
        """Return the sums of the days of which a part is asked for.

        :raises UsageQueryError: users are not counted here.
        :raises LedgerUnavailableError: Valkey gave no answer in time.
        """
        if "user" in {*query.by, *query.only}:
            raise UsageQueryError(
                "user: the totals of all hosts have none; ask each with hosts=own"
            )
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(
            lambda: [0] * len(MEASURES)
        )
        try:
            days = list(self._days(query))
            keys = [usage_key(self._prefix, day) for day in days]
            sizes = await self._link.call(SIZES, keys, [])
            for day, key, size in zip(days, keys, sizes, strict=True):
                if size:
                    _add(groups, query, day, await self._link.call(CELLS, [key], []))
                    await trio.lowlevel.checkpoint()
        except Unavailable as exc:
            raise LedgerUnavailableError(str(exc)) from exc
        rows = [
            dict(zip((*query.by, *MEASURES), (*names, *sums), strict=True))
            for names, sums in groups.items()
            if sums[0]  # a stream whose bill was settled has left its first cell
        ]
        rows.sort(key=lambda row: -row["cost_nusd"])
        return [in_dollars(row) for row in rows]

    def _days(self, query: UsageQuery) -> Iterable[str]:
        now = time.time()
        kept_s = min(self._retention_s, MAX_DAYS * _DAY.total_seconds())
        since = max(query.since, now - kept_s)
        until = min(query.until, now + _DAY.total_seconds())
        day = datetime.fromtimestamp(since, UTC).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        while day.timestamp() < until:
            yield day_of(day.timestamp())
            day += _DAY


def usage_key(prefix: str, day: str) -> str:
    """Return the name of the hash that holds the cells of one day."""
    return f"{{{prefix}}}:usage:{day}"


def _add(
    groups: dict[tuple[Any, ...], list[int]],
    query: UsageQuery,
    day: str,
    reply: list[bytes],
) -> None:
    for cell, said in zip(reply[::2], reply[1::2], strict=True):
        names = dict(zip(NAMES, msgspec.json.decode(cell), strict=True), day=day)
        if all(names[name] == value for name, value in query.only.items()):
            sums = groups[tuple(names[name] for name in query.by)]
            for index, amount in enumerate(said.split()):
                sums[index] += int(amount)

"""What named keys have spent, and whether they may spend more.

A key whose budget is spent gets no new stream. Live streams of a key with `end_streams`
are ended, too: once a second what they have cost so far is estimated and added.

How far a budget can be passed: by what the key's streams that were live at that moment
cost from then on, wherever they live. With Valkey a stream gives its permit back once
it is counted, so that is all; without it other workers see it within two seconds.
Bound it by the key's `streams`. A cut stream counts at once, by an estimate.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import trio
from loguru import logger

from trio_ai_stream.billing.usage_database import NANO, LedgerRow, UsageDatabase
from trio_ai_stream.billing.usage_ledger import LedgerUnavailableError, UsageLedger
from trio_ai_stream.settings.values import NamedKey
from trio_ai_stream.stream.registry import SLICE
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.problems import Fault, Problem
from trio_ai_stream.wire.record import Outcome

REFRESH_S: Final = 1.0
LIMITS_UNAVAILABLE: Final = Problem(
    503,
    "limits_unavailable",
    "the server cannot check its limits now; try again later",
    Fault.SERVER,
    retryable=True,
    retry_after=1,
)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a key has spent this day and this month (UTC), in billionths of a dollar."""

    day: int = 0
    month: int = 0


class Totals(ABC):
    """Counts what keys spend, in this process, on this host or for all hosts.

    What only the totals of all hosts need does nothing here.
    """

    @abstractmethod
    def add(self, name: str, nusd: int, day: str) -> None:
        """Count what a key has spent on a day; never waits."""

    def count(self, row: LedgerRow, times: int) -> None:  # noqa: B027  as said above
        """Count a stream for the sums of all hosts, or take it away (-1)."""

    def when_counted(self, act: Callable[[], object]) -> None:
        """Call `act` once all that was added by now counts for others, or cannot."""
        act()

    @abstractmethod
    def known(self, name: str) -> Spent:
        """Return what is known here, without asking."""

    @abstractmethod
    async def ask(self, name: str) -> Spent | None:
        """Return what is known anywhere; None: nobody can say, so refuse."""

    @abstractmethod
    async def refresh(self, names: Iterable[str]) -> None:
        """Have `known` hold what others have spent."""

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Work in the background until cancelled."""
        task_status.started()

    async def leave(self) -> None:  # noqa: B027  as said above
        """Hand over what is left, in a bound, before `run` is cancelled."""


class LedgerTotals(Totals):
    """Sums of the host's ledger, and what this process has spent since they were read.

    Without a ledger nothing is read, and only this process's own spending is known.
    """

    def __init__(self, ledger: UsageLedger | None) -> None:
        self._ledger = ledger
        self._read = {"day": ("", dict[str, int]()), "month": ("", dict[str, int]())}
        self._since: Counter[tuple[str, str]] = Counter()
        self._reading = trio.Lock()

    def add(self, name: str, nusd: int, day: str) -> None:
        """Count what a key has spent on a day."""
        self._since[name, day] += nusd

    def known(self, name: str) -> Spent:
        """Return the sums as they were read last, and what came since."""
        day = today()
        return Spent(self._sum("day", name, day), self._sum("month", name, day[:7]))

    async def ask(self, name: str) -> Spent:
        """Return what is known: others' spending is a second old at most."""
        return self.known(name)

    async def refresh(self, names: Iterable[str]) -> None:
        """Read the sums, with all that this process has put into the ledger."""
        if self._ledger is None:
            return

        def ask(database: UsageDatabase) -> tuple[str, list[dict[str, int]]]:
            day = today()  # when it is read: it may have waited over midnight
            return day, [database.spent(*_span(of)) for of in (day, day[:7])]

        async with self._reading:  # two at a time would take the same away twice
            # What is counted anew must be what was read: neither more nor less.
            counted, (day, sums) = await self._ledger.ask_with_all(
                ask, self._since.copy
            )
            self._read = {"day": (day, sums[0]), "month": (day[:7], sums[1])}
            self._since.subtract(counted)
            self._since = Counter({what: n for what, n in self._since.items() if n})

    def _sum(self, period: str, name: str, now: str) -> int:
        of, sums = self._read[period]
        read = sums.get(name, 0) if of == now else 0
        since = self._since.items()
        new = (n for (who, day), n in since if who == name and day.startswith(now))
        return read + sum(new)


class Spending:
    """The budgets of one process; `keys` are the named ones, a reload changes them."""

    def __init__(self, totals: Totals, keys: Mapping[str, NamedKey]) -> None:
        self._totals = totals
        self.keys = keys

    def stream_ended(self, row: LedgerRow) -> None:
        """Count an ended stream; never waits."""
        self._totals.count(row, 1)
        self._add(row, row.cost_nusd or 0)

    def settled(self, before: LedgerRow, row: LedgerRow) -> None:
        """Count a stream by its final bill, on the day of its end; never waits."""
        self._totals.count(before, -1)
        self._totals.count(row, 1)
        self._add(row, (row.cost_nusd or 0) - (before.cost_nusd or 0))

    def when_counted(self, act: Callable[[], object]) -> None:
        """Call `act` once what was spent by now counts for others; never waits."""
        self._totals.when_counted(act)

    async def check(self, key: NamedKey) -> Problem | None:
        """Return why a key gets no stream: its budget is spent; None: it gets one."""
        if not key.has_budget:
            return None
        spent = await self._totals.ask(key.name)
        return LIMITS_UNAVAILABLE if spent is None else exhausted(key, spent)

    async def views(self, only: str | None = None) -> list[dict[str, Any]]:
        """Return each key's budget, what is left of it and when it is new again.

        Keys without a budget are read only here; waits for that a second at most.
        """
        with trio.move_on_after(REFRESH_S):
            await self._refresh([name for name in self.keys if only in {None, name}])
        found = []
        for name, key in self.keys.items():
            if only in {None, name}:
                spent = self._totals.known(name)
                found += [
                    {
                        "key": name,
                        "period": period,
                        "spent_usd": used / NANO,
                        "limit_usd": limit,
                        "left_usd": None if limit is None else left(limit, used),
                        "resets_at": resets.isoformat(),
                    }
                    for period, limit, used, resets in _periods(key, spent)
                ]
        return found

    async def run(
        self,
        live: Callable[[], Iterable[Stream]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep the totals, and end streams of keys that want it, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._totals.run)
            await self._refresh(self._with_budget())
            task_status.started()
            while True:
                await trio.sleep(REFRESH_S)
                await self._refresh(self._with_budget())
                await self._end_streams(live())

    async def leave(self) -> None:
        """Hand over what is left to count, in a bound."""
        await self._totals.leave()

    def _add(self, row: LedgerRow, nusd: int) -> None:
        if nusd and row.key in self.keys:
            self._totals.add(row.key, nusd, day_of(row.ended_at))

    def _with_budget(self) -> list[str]:
        return [name for name, key in self.keys.items() if key.has_budget]

    async def _refresh(self, names: list[str]) -> None:
        if not names:
            return
        try:
            await self._totals.refresh(names)
        except LedgerUnavailableError:
            return  # the ledger has said it; what this process spends is known
        except Exception:
            logger.exception("the budgets could not be read", event="budget_error")

    async def _end_streams(self, live: Iterable[Stream]) -> None:
        """End the streams of keys that want it; other tasks run meanwhile."""
        keys = {f"name:{n}": k for n, k in self.keys.items() if k.end_streams}
        if not keys:
            return
        # Read before the streams: what one costs that ends meanwhile counts once.
        spent = {owner: self._totals.known(key.name) for owner, key in keys.items()}
        running: dict[str, list[Stream]] = {owner: [] for owner in keys}
        so_far: Counter[str] = Counter()  # in billionths of a dollar
        for number, stream in enumerate(live, 1):
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
            if stream.owner in keys and stream.ending is None:
                running[stream.owner].append(stream)
                so_far[stream.owner] += round(stream.cost_so_far() * NANO)
        for owner, key in keys.items():
            known, more = spent[owner], so_far[owner]
            used = Spent(known.day + more, known.month + more)
            for start in range(0, len(running[owner]), SLICE):
                # A SIGHUP may have given the key another budget since the last look.
                current = self.keys.get(key.name)
                if current is None or not current.end_streams:
                    break
                problem = exhausted(current, used)
                if problem is None:
                    break
                for stream in running[owner][start : start + SLICE]:
                    stream.stop(
                        Outcome.CANCELLED, problem=problem, detail="budget_exhausted"
                    )
                await trio.lowlevel.checkpoint()


def exhausted(key: NamedKey, spent: Spent) -> Problem | None:
    """Return the refusal of a key that has spent a budget, with when it is new."""
    for period, limit, used, resets in _periods(key, spent):
        if limit is not None and used >= limit * NANO:
            wait_s = (resets - datetime.now(UTC)).total_seconds()
            return Problem(
                402,
                "budget_exhausted",
                f"this key has {left(limit, used):.2f} USD left of its {limit:.2f} USD"
                f" a {period}; they are new at {resets:%Y-%m-%dT%H:%M:%SZ}",
                retry_after=max(1.0, wait_s),
            )
    return None


def left(limit: float, used: int) -> float:
    """Return the dollars that are left of a limit."""
    return max(0.0, limit - used / NANO)


def day_of(ended_at: float) -> str:
    """Return the day of a Unix time in UTC, as 2026-11-26."""
    return datetime.fromtimestamp(ended_at, UTC).date().isoformat()


def today() -> str:
    """Return this day in UTC, as 2026-11-26; the month is its first seven letters."""
    return day_of(time.time())


def _span(period: str) -> tuple[float, float]:
    """Return when a day (2026-11-26) or a month (2026-11) begins and ends in UTC."""
    whole = len(period) == len("2026-11")
    day = period + "-01" if whole else period
    start = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    end = _month_after(start) if whole else start + timedelta(days=1)
    return start.timestamp(), end.timestamp()


def _month_after(midnight: datetime) -> datetime:
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)


def _periods(
    key: NamedKey, spent: Spent
) -> list[tuple[str, float | None, int, datetime]]:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return [
        ("day", key.usd_per_day, spent.day, midnight + timedelta(days=1)),
        ("month", key.usd_per_month, spent.month, _month_after(midnight)),
    ]

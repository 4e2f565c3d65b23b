"""What streams come to, in Valkey for all hosts: by named key, and by cell of a day.

Each process adds up what its streams cost and pushes the sums in batches, of one day
each. A batch has a number, so that one that was pushed twice (there was no answer in
time) counts once. Without Valkey RATE_LIMIT_FALLBACK decides as for rates: `local` goes
by the totals that were seen last and what this process has spent since, as if the other
processes had spent as much; `open` admits, `closed` refuses. What was not pushed is
pushed once it is back.

    {prefix}:spent:DAY       hash    name -> billionths of a dollar
    {prefix}:spent:MONTH     hash    the same
    {prefix}:usage:DAY       hash    cell -> the sums of its streams
    {prefix}:pushed:PROCESS  string  the number of its last batch

A cell is what the streams of one key, model, provider and outcome sum up to. There are
2000 of them a day at most, here and in Valkey; what would be one more is in the cell of
its key's others, so that a client that makes up models does not hide another's sums.
Of those there are 2000 as well, and then the cell of all others.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import trio
from loguru import logger

from trio_ai_stream.admission.gate import Policy
from trio_ai_stream.admission.shared.shared_gate import SharedGate
from trio_ai_stream.admission.shared.valkey_link import Unavailable
from trio_ai_stream.admission.shared.valkey_scripts import LuaScript
from trio_ai_stream.billing.spending import Spent, Totals, day_of, today
from trio_ai_stream.billing.usage_database import SUMS, LedgerRow
from trio_ai_stream.billing.usage_ledger import LedgerUnavailableError
from trio_ai_stream.billing.usage_report import (
    UsageQuery,
    UsageQueryError,
    in_dollars,
)
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.wire.record import Basis, Outcome

MAX_CELLS: Final = 2000
NAMES: Final = ("key", "model", "provider", "outcome")
MEASURES: Final = tuple(SUMS)
_OTHERS: Final = "(others)"
OTHERS: Final = msgspec.json.encode([_OTHERS] * len(NAMES)).decode()
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


class UsageBatch:
    """What keys with names spent on one day, and the cells of all streams."""

    def __init__(self, day: str) -> None:
        self.day = day
        self.spent: Counter[str] = Counter()
        self.cells: dict[str, list[int]] = {}
        self._of_key: dict[str, str] = {}  # each cell's key's others
        self.then: list[Callable[[], object]] = []  # to be called once it is counted

    def count(self, row: LedgerRow, times: int) -> None:
        """Add a stream, or take one away with `times` -1."""
        cell = msgspec.json.encode([getattr(row, name) for name in NAMES]).decode()
        others = msgspec.json.encode([row.key, *[_OTHERS] * 3]).decode()
        if cell not in self.cells and len(self.cells) >= MAX_CELLS:
            cell = others
            if cell not in self.cells and len(self.cells) >= 2 * MAX_CELLS:
                cell = others = OTHERS
        self._of_key[cell] = others
        sums = self.cells.setdefault(cell, [0] * len(MEASURES))
        for index, amount in enumerate(_measures(row)):
            sums[index] += times * amount

    def over(self) -> None:
        """Call what waits for the batch: it is counted, or cannot be now."""
        waiting, self.then = self.then, []
        for act in waiting:
            act()

    def arguments(self) -> list[str | int]:
        """Return what the script takes: pairs of names and amounts, then the cells."""
        found: list[str | int] = [len(self.spent)]
        for name, nusd in self.spent.items():
            found += [name, nusd]
        for cell, sums in self.cells.items():
            found += [cell, self._of_key[cell], " ".join(map(str, sums))]
        return found


def _measures(row: LedgerRow) -> Iterator[int]:
    """Yield what one stream adds to each of `SUMS`, in their order."""
    yield 1
    for count in (
        row.prompt_tokens,
        row.completion_tokens,
        row.reasoning_tokens,
        row.cached_tokens,
        row.cost_nusd,
    ):
        yield count or 0
    for basis in (Basis.EXACT, Basis.RECONCILED, Basis.ESTIMATED):
        yield row.usage is basis
    yield row.outcome != Outcome.COMPLETED
    yield (row.tokens_after_close or 0) > 0
    yield row.tokens_after_close or 0


BATCH_S: Final = 0.05
AGAIN_S: Final = 1.0
LEAVE_S: Final = 0.35
"""Less than the server's `app_shutdown_s`, or nobody would be told what was lost."""
_DAY_MS: Final = 86_400_000
_MOST_NAMES: Final = 1000
"""Names in one question: Lua unpacks less than 8000, and no call is to run long."""

# KEYS: day, month, pushed, usage. ARGV: number, how long cells are kept (ms), how many
# there may be, the cell of all others; then how many names, those and their amounts;
# then for each cell its name, that of its key's `(others)`, which is taken when there
# are too many, and the sums to add. A cell: one key's streams of one model and outcome.
PUSH: Final = LuaScript(
    "push",
    f"""
local usage, most, others = KEYS[4], tonumber(ARGV[3]), ARGV[4]
local first = 6 + 2 * tonumber(ARGV[5])

local function added(old, new)
  if not old then return new end
  local next_old, sums = string.gmatch(old, '%S+'), {{}}
  for more in string.gmatch(new, '%S+') do
    sums[#sums + 1] = string.format('%.0f', (next_old() or 0) + more)
  end
  return table.concat(sums, ' ')
end

if tonumber(ARGV[1]) > tonumber(redis.call('GET', KEYS[3]) or 0) then
  for index = 6, first - 1, 2 do
    redis.call('HINCRBY', KEYS[1], ARGV[index], ARGV[index + 1])
    redis.call('HINCRBY', KEYS[2], ARGV[index], ARGV[index + 1])
  end
  for index = first, #ARGV, 3 do
    local cell = ARGV[index]
    local old = redis.call('HGET', usage, cell)
    local size = redis.call('HLEN', usage)
    if not old and size >= most then
      cell = ARGV[index + 1]
      old = redis.call('HGET', usage, cell)
      if not old and size >= 2 * most then
        cell = others
        old = redis.call('HGET', usage, cell)
      end
    end
    redis.call('HSET', usage, cell, added(old, ARGV[index + 2]))
  end
  redis.call('SET', KEYS[3], ARGV[1], 'PX', {_DAY_MS})
  redis.call('PEXPIRE', KEYS[1], {3 * _DAY_MS})
  redis.call('PEXPIRE', KEYS[2], {40 * _DAY_MS})
  redis.call('PEXPIRE', usage, ARGV[2])
end
return 1
""",
)
SPENT: Final = LuaScript(
    "spent",
    """
return {tonumber(redis.call('GET', KEYS[3]) or 0),
        redis.call('HMGET', KEYS[1], unpack(ARGV)),
        redis.call('HMGET', KEYS[2], unpack(ARGV))}
""",
)


class SharedTotals(Totals):
    """The totals of all hosts.

    `retention_s` is how long the cells of a day are kept.
    """

    def __init__(
        self,
        gate: SharedGate,
        metrics: Metrics,
        policy: Policy,
        *,
        retention_s: float,
    ) -> None:
        self._link = gate.link
        self._leases = gate.leases
        self._keys = gate.keys
        self._metrics = metrics
        self._policy = policy
        self._retention_ms = round(1000 * retention_s)
        self._seen: dict[str, tuple[str, Spent]] = {}
        self._new: dict[str, UsageBatch] = {}  # by day, the oldest first
        self._batch: UsageBatch | None = None
        self._number = 0  # of the batch, or of the last one if there is none
        self._counted = 0  # the number of the last batch that Valkey is known to have
        self._news = trio.Event()

    def add(self, name: str, nusd: int, day: str) -> None:
        """Count what a key has spent on a day; it is pushed in the background."""
        self._of(day).spent[name] += nusd

    def count(self, row: LedgerRow, times: int) -> None:
        """Count a stream on the day that it ended."""
        self._of(day_of(row.ended_at)).count(row, times)

    def when_counted(self, act: Callable[[], object]) -> None:
        """Call `act` when Valkey has what was added by now, or cannot be reached."""
        batches = [*self._unpushed()]
        if batches and self._link.up:
            batches[-1].then.append(act)
        else:
            act()

    def _unpushed(self) -> Iterator[UsageBatch]:
        if self._batch is not None:
            yield self._batch
        yield from self._new.values()

    def known(self, name: str, processes: int = 1) -> Spent:
        """Return what was seen last, and what is not pushed yet.

        That counts as often as there are `processes` that spend.
        """
        spent = self._seen_today(name)
        for batch in self._unpushed():
            spent = _with(spent, batch, name, processes)
        return spent

    def _seen_today(self, name: str) -> Spent:
        of, seen = self._seen.get(name, ("", Spent()))
        day = today()
        return Spent(
            seen.day if of == day else 0, seen.month if of[:7] == day[:7] else 0
        )

    async def ask(self, name: str) -> Spent | None:
        """Ask Valkey, within its timeout; without an answer the policy decides."""
        try:
            await self._see([name])
        except Unavailable as exc:
            self._metrics.gate_failed(exc.cause)
            if self._policy == "closed":
                return None
            if self._policy == "open":
                return Spent()
            # The others spend meanwhile as well, and nobody sees it.
            return self.known(name, max(1, self._leases.processes))
        return self.known(name)

    async def refresh(self, names: Iterable[str]) -> None:
        """See what all hosts have spent; without an answer what was seen stays."""
        try:
            await self._see(names)
        except Unavailable as exc:
            self._metrics.gate_failed(exc.cause)

    async def _see(self, names: Iterable[str]) -> None:
        """See what all hosts have spent.

        :raises Unavailable: there was no answer.
        """
        wanted = list(names)
        for start in range(0, len(wanted), _MOST_NAMES):
            await self._see_some(wanted[start : start + _MOST_NAMES])

    async def _see_some(self, wanted: list[str]) -> None:
        while True:
            day, counted = today(), self._counted
            pushed, *sums = await self._link.call(SPENT, self._where(day), wanted)
            # Two answers may be acted on in the other order. A batch that was pushed
            # meanwhile is in these sums only if they say so.
            stale = pushed < self._counted and counted != self._counted
            if self._batch is not None and pushed == self._number:
                self._batch_counted(self._batch)
            if not stale and day == today():  # it may be over meanwhile
                break
        for name, *amounts in zip(wanted, *sums, strict=True):
            self._seen[name] = (day, Spent(*(int(amount or 0) for amount in amounts)))

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Push what is new, in batches, until cancelled."""
        task_status.started()
        while True:
            await self._news.wait()
            self._news = trio.Event()
            pushed = await self._push()
            if not pushed or self._new:
                self._news.set()
            await trio.sleep(BATCH_S if pushed else AGAIN_S)

    async def leave(self) -> None:
        """Push what is left, within `LEAVE_S`; what cannot be pushed is said.

        A link that has just been lost may be back in time.
        """
        with trio.move_on_after(LEAVE_S):
            while self._batch or self._new:
                if not (self._link.up and await self._push()):
                    await trio.sleep(BATCH_S)
        for batch in self._unpushed():
            batch.over()
        if self._batch or self._new:
            logger.warning(
                "the totals of all hosts lack what this process counted last",
                event="totals_lost",
            )

    def _of(self, day: str) -> UsageBatch:
        self._news.set()
        return self._new.setdefault(day, UsageBatch(day))

    async def _push(self) -> bool:
        if self._batch is None and self._new:
            self._batch = self._new.pop(next(iter(self._new)))
            self._number += 1
        batch = self._batch
        if batch is None:
            return True
        keys = [*self._where(batch.day), usage_key(self._keys.prefix, batch.day)]
        head = [self._number, self._retention_ms, MAX_CELLS, OTHERS]
        try:
            await self._link.send(PUSH, keys, [*head, *batch.arguments()])
        except Unavailable as exc:
            self._metrics.gate_failed(exc.cause)
            for waiting in self._unpushed():
                waiting.over()
            return False
        if self._batch is batch:
            self._batch_counted(batch)
        return True

    def _batch_counted(self, batch: UsageBatch) -> None:
        """Take the batch for seen, until its names are asked for again."""
        for name in batch.spent:
            self._seen[name] = (today(), _with(self._seen_today(name), batch, name))
        self._batch = None
        self._counted = self._number
        batch.over()

    def _where(self, day: str) -> list[str]:
        """Return the keys of the scripts, for this day and its month."""
        pushed = self._key("pushed", self._keys.process)
        return [self._key("spent", day), self._key("spent", day[:7]), pushed]

    def _key(self, kind: str, of: str) -> str:
        return f"{{{self._keys.prefix}}}:{kind}:{of}"


def _with(spent: Spent, batch: UsageBatch, name: str, times: int = 1) -> Spent:
    """Return what is spent this day and this month with what a batch holds of it."""
    day, own = today(), batch.spent[name] * times
    return Spent(
        spent.day + (own if batch.day == day else 0),
        spent.month + (own if batch.day[:7] == day[:7] else 0),
    )

"""What named keys have spent, in Valkey for all hosts.

Each process adds up what its streams cost and pushes the sums in batches. A batch has a
number, so that one that was pushed twice (there was no answer in time) counts once.
Without Valkey RATE_LIMIT_FALLBACK decides as for rates: `local` goes by the totals that
were seen last and what this process has spent since, `open` admits, `closed` refuses;
what was not pushed is pushed once it is back.

    {prefix}:spent:DAY       hash    name -> billionths of a dollar
    {prefix}:spent:MONTH     hash    the same
    {prefix}:pushed:PROCESS  string  the number of its last batch
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import trio

from trio_ai_stream.admission.shared.outage import Unavailable
from trio_ai_stream.admission.shared.shared_gate import Policy, SharedGate
from trio_ai_stream.admission.shared.valkey_scripts import LuaScript
from trio_ai_stream.billing.spending import Spent, today
from trio_ai_stream.telemetry.metrics import Metrics

BATCH_S: Final = 0.05
AGAIN_S: Final = 1.0
LEAVE_S: Final = 1.0
_DAY_MS: Final = 86_400_000

# KEYS of both: day, month, pushed. ARGV: number, then names and amounts.
PUSH: Final = LuaScript(
    "push",
    f"""
if tonumber(ARGV[1]) > tonumber(redis.call('GET', KEYS[3]) or 0) then
  for index = 2, #ARGV, 2 do
    redis.call('HINCRBY', KEYS[1], ARGV[index], ARGV[index + 1])
    redis.call('HINCRBY', KEYS[2], ARGV[index], ARGV[index + 1])
  end
  redis.call('SET', KEYS[3], ARGV[1], 'PX', {_DAY_MS})
  redis.call('PEXPIRE', KEYS[1], {3 * _DAY_MS})
  redis.call('PEXPIRE', KEYS[2], {40 * _DAY_MS})
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


class SharedTotals:
    """The totals of all hosts; the same protocol as `LedgerTotals`."""

    def __init__(self, gate: SharedGate, metrics: Metrics, policy: Policy) -> None:
        self._link = gate.link
        self._keys = gate.keys
        self._metrics = metrics
        self._policy = policy
        self._seen: dict[str, tuple[str, Spent]] = {}
        self._new: Counter[str] = Counter()
        self._batch: Counter[str] = Counter()
        self._number = 0  # of the batch, or of the last one if there is none
        self._counted = 0  # the number of the last batch that Valkey is known to have
        self._news = trio.Event()

    def add(self, name: str, nusd: int) -> None:
        """Count what a key has spent; it is pushed in the background."""
        self._new[name] += nusd
        self._news.set()

    def known(self, name: str) -> Spent:
        """Return what was seen last, and what is not pushed yet."""
        own, seen = self._new[name] + self._batch[name], self._seen_today(name)
        return Spent(seen.day + own, seen.month + own)

    def _seen_today(self, name: str) -> Spent:
        of, seen = self._seen.get(name, ("", Spent()))
        day = today()
        return Spent(
            seen.day if of == day else 0, seen.month if of[:7] == day[:7] else 0
        )

    async def ask(self, name: str) -> Spent | None:
        """Ask Valkey, within its timeout; without an answer the policy decides."""
        try:
            await self.refresh([name])
        except Unavailable as exc:
            self._metrics.gate_failed(exc.cause)
            if self._policy == "closed":
                return None
            if self._policy == "open":
                return Spent()
        return self.known(name)

    async def refresh(self, names: Iterable[str]) -> None:
        """See what all hosts have spent.

        :raises Unavailable: there was no answer.
        """
        wanted = list(names)
        while True:
            day, counted = today(), self._counted
            pushed, *sums = await self._link.call(SPENT, self._where(day), wanted)
            # Two answers may be acted on in the other order. A batch that was pushed
            # meanwhile is in these sums only if they say so.
            stale = pushed < self._counted and counted != self._counted
            if self._batch and pushed == self._number:
                self._batch_counted()
            if not stale:
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
        """Push what is left, within a second."""
        with trio.move_on_after(LEAVE_S):
            while (self._batch or self._new) and await self._push():
                pass

    async def _push(self) -> bool:
        if not self._batch and self._new:
            self._batch, self._new = self._new, Counter()
            self._number += 1
        batch = self._batch
        if not batch:
            return True
        arguments: list[Any] = [self._number]
        for name, nusd in batch.items():
            arguments += [name, nusd]
        try:
            await self._link.send(PUSH, self._where(today()), arguments)
        except Unavailable as exc:
            self._metrics.gate_failed(exc.cause)
            return False
        if self._batch is batch:
            self._batch_counted()
        return True

    def _batch_counted(self) -> None:
        """Take the batch for seen, until its names are asked for again."""
        for name, nusd in self._batch.items():
            seen = self._seen_today(name)
            self._seen[name] = (today(), Spent(seen.day + nusd, seen.month + nusd))
        self._batch = Counter()
        self._counted = self._number

    def _where(self, day: str) -> list[str]:
        """Return the keys of the scripts, for this day and its month."""
        pushed = self._key("pushed", self._keys.process)
        return [self._key("spent", day), self._key("spent", day[:7]), pushed]

    def _key(self, kind: str, of: str) -> str:
        return f"{{{self._keys.prefix}}}:{kind}:{of}"

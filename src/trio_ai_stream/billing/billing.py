"""What becomes of a stream's bill: told, kept, looked up, told again when settled.

`open_billing` opens what a deployment has: alone, with a ledger, or with Valkey.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import trio
from loguru import logger

from trio_ai_stream.admission.gate import Gate
from trio_ai_stream.billing.reconciler import Get, Reconciler
from trio_ai_stream.billing.spending import LedgerTotals, Spending, Totals
from trio_ai_stream.billing.usage_database import LedgerRow, row_of
from trio_ai_stream.billing.usage_ledger import UsageLedger
from trio_ai_stream.settings import Settings
from trio_ai_stream.stream.estimate import TokenEstimator
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.telemetry.log_rendering import shown_client
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.wire.record import Basis, Record

if TYPE_CHECKING:  # its client of Valkey is an extra
    from trio_ai_stream.billing.shared_totals import SharedUsage


class Billing:
    """The bills of one process.

    `clients` is how addresses are shown (LOG_CLIENTS); `shared_usage` knows what all
    hosts have counted.
    """

    def __init__(
        self,
        metrics: Metrics,
        estimator: TokenEstimator,
        *,
        clients: Literal["full", "network", "none"],
        reconcile_s: float,
        spending: Spending,
        ledger: UsageLedger | None = None,
        shared_usage: SharedUsage | None = None,
    ) -> None:
        self.ledger = ledger
        self.shared_usage = shared_usage
        self.spending = spending
        self.reconciler = Reconciler(self._settled, for_s=reconcile_s)
        self._clients = clients
        self._metrics = metrics
        self._estimator = estimator
        self._worker = "" if ledger is None else ledger.worker

    def key_name(self, owner: str) -> str:
        """Return under which name the ledger keeps what a client's id spends."""
        if not owner.startswith("ip:"):  # whatever the log shows
            return owner.removeprefix("name:")
        return shown_client(owner, self._clients) or ""

    def stream_ended(self, record: Record) -> None:
        """Take the bill of an ended stream; never waits."""
        settled = record.bill.basis is not Basis.ESTIMATED
        spends = record.owner.startswith("name:") or self.shared_usage is not None
        if spends or not settled or self.ledger is not None:
            self._keep(record, spends=spends)
        if settled:
            self._metrics.stream_billed(record.outcome.value, record.bill)

    def _keep(self, record: Record, *, spends: bool) -> None:
        """Give a row of the bill to whoever works with one."""
        row = row_of(
            record,
            key=self.key_name(record.owner),
            worker=self._worker,
            ended_at=time.time(),
        )
        if self.ledger is not None:
            self.ledger.put(row)
        if spends:
            self.spending.stream_ended(row)
        if row.open:
            self._reconcile(row)

    def _reconcile(self, row: LedgerRow) -> None:
        if not self.reconciler.put(row):
            self._metrics.bill_dropped()
        self._metrics.bills_open(len(self.reconciler))

    async def run(
        self,
        get: Get,
        live: Callable[[], Iterable[Stream]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Settle and keep bills until cancelled.

        `get` fetches from upstream; `live` returns the live streams.
        """
        async with trio.open_nursery() as nursery:
            if self.ledger is not None:
                await nursery.start(self.ledger.run, self._reconcile)
            await nursery.start(self.spending.run, live)
            nursery.start_soon(self.reconciler.run, get, name="reconciler")
            task_status.started()

    def _settled(
        self, before: LedgerRow, row: LedgerRow, lag_s: float, asked: int
    ) -> None:
        bill = row.bill
        self.spending.settled(before, row)
        if self.ledger is not None:
            self.ledger.put(row)
        if bill.basis is Basis.RECONCILED:
            self._estimator.learn_cost(row.model, bill)
        self._metrics.stream_billed(row.outcome, bill)
        self._metrics.reconciled(lag_s)
        self._metrics.bills_open(len(self.reconciler) - 1)
        logger.bind(request_id=row.request_id).info(
            "stream billed",
            event="stream_billed",
            generation_id=row.generation_id,
            model=row.model,
            outcome=row.outcome,
            **bill.fields(),
            lookups=asked,
            lag_ms=round(1000 * lag_s),
        )


DAY_S = 86_400


def open_billing(
    settings: Settings, metrics: Metrics, gate: Gate, estimator: TokenEstimator
) -> Billing:
    """Return the bills of this process; `gate` is the one that REDIS_URL opened."""
    ledger = shared_usage = None
    retention_s = settings.LEDGER_RETENTION_DAYS * DAY_S
    if settings.LEDGER_FILE is not None:
        ledger = UsageLedger(settings.LEDGER_FILE, metrics, retention_s=retention_s)
    totals: Totals = LedgerTotals(ledger)
    if settings.REDIS_URL is not None:
        # Imported only where it is used: its client is an extra.
        from trio_ai_stream.admission.shared.shared_gate import SharedGate
        from trio_ai_stream.billing.shared_totals import SharedTotals, SharedUsage

        assert isinstance(gate, SharedGate)
        policy = settings.RATE_LIMIT_FALLBACK
        totals = SharedTotals(gate, metrics, policy, retention_s=retention_s)
        shared_usage = SharedUsage(gate, retention_s=retention_s)
    return Billing(
        metrics,
        estimator,
        clients=settings.LOG_CLIENTS,
        reconcile_s=settings.RECONCILE_SECS,
        spending=Spending(totals, settings.named_keys),
        ledger=ledger,
        shared_usage=shared_usage,
    )

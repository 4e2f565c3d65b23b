"""Opens the bills that a deployment has: alone, with a ledger, or with Valkey."""

from __future__ import annotations

from trio_ai_stream.admission.gate import Gate
from trio_ai_stream.billing.billing import Billing
from trio_ai_stream.billing.spending import LedgerTotals, Spending, Totals
from trio_ai_stream.billing.usage_ledger import UsageLedger
from trio_ai_stream.settings import Settings
from trio_ai_stream.stream.estimate import TokenEstimator
from trio_ai_stream.telemetry.metrics import Metrics

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

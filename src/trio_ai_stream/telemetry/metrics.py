"""What the server counts, as plain methods; `render` is what `/metrics` answers.

An observation is one or two additions to a flat array (`slots`): no lock, no label
lookup on the hot path, so that even the gap between two writes can be observed at each
write. There is no global registry: each `Metrics` counts for itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from trio_ai_stream.telemetry.families import FAMILIES, OTHER, PREFIX, Family, Layout
from trio_ai_stream.telemetry.slots import Slots
from trio_ai_stream.wire.record import Basis, Bill, Outcome, Record


class SlotCollector(Collector):
    """Turns the summed numbers into metric families each time it is asked."""

    def __init__(
        self,
        layout: Layout,
        totals: Callable[[], tuple[list[float], int]],
        info: dict[str, str],
    ) -> None:
        self._layout = layout
        self._totals = totals
        self._info = info

    def collect(self) -> Iterable[Metric]:
        """Yield every family; series that never counted are there too, as zeros."""
        totals, alive = self._totals()
        info = GaugeMetricFamily(
            PREFIX + "info", "What runs; always 1.", labels=list(self._info)
        )
        info.add_metric(list(self._info.values()), 1)
        yield info
        yield GaugeMetricFamily(PREFIX + "workers", "Worker processes alive.", alive)
        for family in self._layout.families:
            yield self._metric(family, totals)

    def _metric(self, family: Family, totals: Sequence[float]) -> Metric:
        name, text = family.prefix + family.name, family.documentation
        labels = [label for label, _ in family.labels]
        if family.kind == "histogram":
            histogram = HistogramMetricFamily(name, text)
            start = self._layout.slot(family.name)
            buckets, total = _cumulate(family, totals[start : start + family.width])
            histogram.add_metric([], buckets, total)
            return histogram
        metric: CounterMetricFamily | GaugeMetricFamily
        if family.kind == "counter":
            metric = CounterMetricFamily(name, text, labels=labels)
        else:
            metric = GaugeMetricFamily(name, text, labels=labels)
        for values in family.series():
            metric.add_metric(values, totals[self._layout.slot(family.name, *values)])
        return metric


def _cumulate(
    family: Family, numbers: Sequence[float]
) -> tuple[list[tuple[str, float]], float]:
    """Return Prometheus' running counts by upper bound, and the sum observed."""
    running, buckets = 0.0, []
    bounds = [*(str(float(bound)) for bound in family.bounds), "+Inf"]
    for bound, count in zip(bounds, numbers[:-1], strict=True):
        running += count
        buckets.append((bound, running))
    return buckets, numbers[-1]


class _Histogram:
    """Where one histogram's numbers lie."""

    __slots__ = ("_bounds", "_first", "_slots", "_sum")

    def __init__(self, slots: Slots, layout: Layout, name: str) -> None:
        family = next(family for family in layout.families if family.name == name)
        self._slots = slots
        self._bounds = family.bounds
        self._first = layout.slot(name)
        self._sum = self._first + len(family.bounds) + 1

    def observe(self, value: float) -> None:
        numbers = self._slots.numbers
        numbers[self._first + bisect_left(self._bounds, value)] += 1.0
        numbers[self._sum] += value


class Metrics:
    """The counters of one process, or its share of those of several.

    With a `directory`, which every worker of one server passes alike, `render` answers
    for all of them. Use it from the thread that runs Trio only.
    """

    def __init__(
        self, *, version: str, upstream: str, directory: Path | None = None
    ) -> None:
        self._layout = Layout(FAMILIES)
        self._offsets = self._layout.offsets
        self._slots = Slots(self._layout, directory)
        info = {"version": version, "upstream": upstream}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(SlotCollector(self._layout, self._slots.totals, info))
        self._seen: dict[tuple[str, ...], float] = {}
        self._loop_lag = self._histogram("loop_lag_seconds")
        self._first_content = self._histogram("time_to_first_content_seconds")
        # Observes the seconds between two writes of content to one client. It is called
        # for every event, so without a method of ours around it.
        self.content_gap = self._histogram("event_gap_seconds").observe
        self._duration = self._histogram("stream_duration_seconds")
        self._cancellation = self._histogram("cancellation_latency_seconds")
        self._estimate_error = self._histogram("estimate_error_ratio")
        self._reconcile_lag = self._histogram("reconcile_lag_seconds")
        self._gate_decision = self._histogram("gate_decision_seconds")

    def stream_started(self, endpoint: str) -> None:
        """Count one live stream; `stream_ended` must follow, however it ends."""
        self._add("streams_live", endpoint)

    def stream_ended(self, record: Record) -> None:
        """Count one stream's end, with all that its record holds."""
        self._add("streams_live", record.endpoint, amount=-1)
        fault = record.fault or "none"
        self._add("streams", record.endpoint, record.outcome, fault)
        if record.outcome is Outcome.ABANDONED:
            self._add("abandoned")
        self._duration.observe(record.duration_s)
        if record.first_content_s is not None:
            self._first_content.observe(record.first_content_s)
        if record.cancel_latency_s is not None:
            self._cancellation.observe(record.cancel_latency_s)
        self._add("sent_bytes", amount=record.bytes_out)
        self._add("sent_events", amount=record.events)
        self._add("sent_blocks", amount=record.blocks)
        self._add("upstream_attempts", amount=record.attempts)
        self._add("upstream_retries", amount=max(0, record.attempts - 1))
        bill = record.bill
        if bill.basis is Basis.EXACT:
            self._add("tokens", "input", amount=bill.prompt_tokens or 0)
            self._add("tokens", "output", amount=bill.completion_tokens or 0)

    def stream_billed(self, outcome: str, bill: Bill) -> None:
        """Count a bill that is settled."""
        self._add("bills", bill.basis)
        self._add("cost_usd", outcome, amount=bill.cost_usd or 0.0)
        if bill.basis is Basis.RECONCILED:
            provider = bill.provider or OTHER
            self._add("cut_streams", provider)
            wasted = bill.tokens_after_close or 0
            self._add("wasted_tokens", provider, amount=wasted)

    def reconciled(self, lag_s: float) -> None:
        """Observe how long after its end a cut stream's bill was settled."""
        self._reconcile_lag.observe(lag_s)

    def bills_open(self, count: int) -> None:
        """Say how many bills are still looked up."""
        self._set("bills_open", count)

    def bill_dropped(self) -> None:
        """Count a bill that there was no room to look up."""
        self._add("bills_dropped")

    def ledger_failed(self, part: str) -> None:
        """Count a failed write to the ledger; see `families.LEDGER_PARTS`."""
        self._add("ledger_errors", part)

    def ledger_rows_lost(self) -> None:
        """Count a row that the ledger will not have."""
        self._add("ledger_rows_lost")

    def estimate_compared(self, error: float) -> None:
        """Observe the relative error of an estimate that exact usage followed."""
        self._estimate_error.observe(error)

    def request_ended(self, status: int | None) -> None:
        """Count a request; the status is None if the client left before one."""
        self._add("requests", "none" if status is None else str(status))

    def upstream_answered(self, status: int) -> None:
        """Count an answer of upstream."""
        self._add("upstream_responses", f"{status // 100}xx")

    def upstream_circuit_open(self, *, active: bool) -> None:
        """Say whether this worker's circuit for connecting to upstream is open."""
        self._set("upstream_circuit_open", active)

    def upstream_buffers(self, *, held: int, refused: int) -> None:
        """Say what parts of answers this process holds, and how often it could not."""
        self._set("upstream_buffer_bytes", held)
        self._raise_to("upstream_buffer_refused", total=refused)

    def resumables(
        self, *, detached: int, held: int, resumed: int, refused: int
    ) -> None:
        """Say what this process's streams with a grace do, and have done so far."""
        self._set("streams_detached", detached)
        self._set("grace_log_bytes", held)
        self._raise_to("resumed", total=resumed)
        self._raise_to("grace_refused", total=refused)

    def retry_denied(self) -> None:
        """Count a retry that the budget did not allow."""
        self._add("upstream_retries_denied")

    def refused(self, reason: str) -> None:
        """Count a request refused before a stream; see `families.REFUSALS`."""
        self._add("refused", reason)

    def server_counts(
        self,
        *,
        connections_open: int,
        connections_total: int,
        interventions: Mapping[Any, int],
        workers_expected: int,
        certificate_expires_at: float,
    ) -> None:
        """Take over what this process's server has counted since it started.

        For the kinds see `families.INTERVENTIONS`. The certificate's end is in Unix
        time, 0 without one.
        """
        self._set("connections_open", connections_open)
        self._raise_to("connections", total=connections_total)
        self._set("workers_expected", workers_expected)
        self._set("certificate_expiry_timestamp_seconds", certificate_expires_at)
        for kind, total in interventions.items():
            self._raise_to("guard_interventions", kind, total=total)

    def worker_replaced(self, reason: str) -> None:
        """Count that this worker stands for another; see `families.REPLACEMENTS`."""
        self._add("worker_replacements", reason)

    def ready(self, *, active: bool) -> None:
        """Say whether this worker takes new streams."""
        self._set("ready", active)

    def upstream_key_rejected(self, *, active: bool) -> None:
        """Say whether upstream has just rejected this server's key."""
        self._set("upstream_key_rejected", active)

    def draining(self, *, active: bool) -> None:
        """Say whether this worker is draining."""
        self._set("draining", active)

    def gate_fallback(self, *, active: bool) -> None:
        """Say whether this worker's shared limits can't be reached."""
        self._set("gate_fallback", active)

    def redis_lost(self) -> None:
        """Count that the connection to Redis or Valkey was lost, or could not be made.

        A connection that cannot be made again counts no second time.
        """
        self._add("redis_lost")

    def gate_failed(self, kind: str) -> None:
        """Count a shared decision that failed; see `families.GATE_FAILURES`."""
        self._add("gate_failures", kind)

    def gate_decided(self, seconds: float) -> None:
        """Observe how long one shared decision took."""
        self._gate_decision.observe(seconds)

    def log_records_dropped(self, total: int) -> None:
        """Say how many log records this process has dropped since it started."""
        self._raise_to("log_records_dropped", total=total)

    def loop_lag(self, seconds: float) -> None:
        """Observe how late this process's loop was."""
        self._loop_lag.observe(seconds)

    def longest_turn(self, seconds: float) -> None:
        """Say how long this process's loop ran at most without a look at sockets."""
        self._set("loop_longest_turn_seconds", seconds)

    def slow_turns(self, count: int) -> None:
        """Count turns of the loop that were longer than `sampling.SLOW_S`."""
        self._add("loop_slow_turns", amount=count)

    def collected(self, reason: str) -> None:
        """Count a full pass of the garbage collector; see `families.PASSES`."""
        self._add("collector_passes", reason)

    def process(
        self,
        *,
        cpu_s: float,
        resident_bytes: int,
        open_fds: int,
        max_fds: int,
        started_at: float,
    ) -> None:
        """Say what this process uses of the machine; `started_at` is Unix time."""
        self._raise_to("process_cpu_seconds", total=cpu_s)
        self._set("process_resident_memory_bytes", resident_bytes)
        self._set("process_open_fds", open_fds)
        self._set("process_max_fds", max_fds)
        self._set("process_start_time_seconds", started_at)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Return content type and body for a scraper that sends `accept`."""
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(self._registry)

    def close(self) -> None:
        """Leave the other workers' sums; counters stay in them, gauges do not."""
        self._slots.close()

    def _histogram(self, name: str) -> _Histogram:
        return _Histogram(self._slots, self._layout, name)

    def _add(self, name: str, *labels: str, amount: float = 1.0) -> None:
        slot = self._offsets.get((name, labels))
        if slot is None:
            slot = self._layout.slot(name, *labels)
        self._slots.numbers[slot] += amount

    def _raise_to(self, name: str, *labels: str, total: float) -> None:
        """Add what a total of this process has grown by since it was last told."""
        before = self._seen.get((name, *labels), 0)
        self._add(name, *labels, amount=total - before)
        self._seen[name, *labels] = total

    def _set(self, name: str, value: float) -> None:
        self._slots.numbers[self._offsets[name, ()]] = value

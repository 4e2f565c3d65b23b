"""The metrics as Prometheus reads them, by prometheus-client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from trio_ai_stream.telemetry.families import PREFIX, Family, Layout


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
        name, labels = (
            family.prefix + family.name,
            [label for label, _ in family.labels],
        )
        text = family.documentation
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


def encode(collector: SlotCollector, accept: str) -> tuple[str, bytes]:
    """Return content type and body in the format that `accept` asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    encoder, content_type = choose_encoder(accept)
    return content_type, encoder(registry)

"""Writes the Grafana dashboard, `docs/deploy/grafana.json`.

`python -m scripts.dashboard` writes it; tests/telemetry/test_dashboard.py fails when it
is not what this would write, or when it asks for a metric that the server has not got.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "docs" / "deploy" / "grafana.json"

_P = "trio_ai_stream_"
_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 8


def quantiles(name: str) -> list[tuple[str, str]]:
    """Return the queries for a histogram's median, 95th and 99th percentile."""
    rate = f"sum by (le) (rate({_P}{name}_bucket[$__rate_interval]))"
    return [
        (f"histogram_quantile({quantile}, {rate})", legend)
        for quantile, legend in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]


def rate(name: str, label: str = "") -> list[tuple[str, str]]:
    """Return the query for a counter's rate, by one label or over all."""
    by = f" by ({label})" if label else ""
    query = f"sum{by} (rate({_P}{name}[$__rate_interval]))"
    return [(query, f"{{{{{label}}}}}" if label else "all")]


def total(name: str, label: str = "") -> list[tuple[str, str]]:
    """Return the query for a gauge's sum, by one label or over all."""
    by = f" by ({label})" if label else ""
    return [(f"sum{by} ({_P}{name})", f"{{{{{label}}}}}" if label else "all")]


PANELS: tuple[tuple[str, str, list[tuple[str, str]]], ...] = (
    ("Live streams", "short", total("streams_live", "endpoint")),
    ("Streams ended, by outcome", "ops", rate("streams_total", "outcome")),
    ("Requests refused, by reason", "ops", rate("refused_total", "reason")),
    ("Time to first content", "s", quantiles("time_to_first_content_seconds")),
    ("Gap between writes of content", "s", quantiles("event_gap_seconds")),
    ("Cause to upstream closed", "s", quantiles("cancellation_latency_seconds")),
    ("Stream duration", "s", quantiles("stream_duration_seconds")),
    ("Loop lag: the workers' own load", "s", quantiles("loop_lag_seconds")),
    ("Bytes to clients", "Bps", rate("sent_bytes_total")),
    (
        "Events, and the writes that carry them",
        "ops",
        rate("sent_events_total") + rate("sent_blocks_total"),
    ),
    ("Tokens", "ops", rate("tokens_total", "direction")),
    ("Connections open", "short", total("connections_open")),
    ("Guard interventions", "ops", rate("guard_interventions_total", "kind")),
    ("Shared decisions", "s", quantiles("gate_decision_seconds")),
    ("Shared decisions that failed", "ops", rate("gate_failures_total", "kind")),
    (
        "Workers: alive, draining, in fallback",
        "short",
        [
            (f"sum ({_P}{name})", name)
            for name in ("workers", "draining", "gate_fallback")
        ],
    ),
    ("Log records dropped", "ops", rate("log_records_dropped_total")),
)


def panel(number: int, title: str, unit: str, queries: list[tuple[str, str]]) -> Any:
    """Return one time series panel at its place in the grid."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": {
            "x": number % _COLUMNS * _WIDTH,
            "y": number // _COLUMNS * _HEIGHT,
            "w": _WIDTH,
            "h": _HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": source,
                "expr": query,
                "legendFormat": legend,
            }
            for index, (query, legend) in enumerate(queries)
        ],
    }


def dashboard() -> dict[str, Any]:
    """Return the whole dashboard as Grafana imports it."""
    variable = {"name": "datasource", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "trio-ai-stream",
        "title": "trio-ai-stream",
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": [panel(number, *what) for number, what in enumerate(PANELS)],
    }


def rendered() -> str:
    """Return the file's text."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(rendered(), "utf-8")

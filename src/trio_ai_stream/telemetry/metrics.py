"""What the server counts, as plain methods; `render` is what `/metrics` answers.

An observation is one or two additions to a flat array (`slots`): no lock, no label
lookup on the hot path, so that even the gap between two writes can be observed at each
write. There is no global registry: each `Metrics` counts for itself.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

from trio_ai_stream.telemetry.exposition import SlotCollector, encode
from trio_ai_stream.telemetry.families import FAMILIES, Layout
from trio_ai_stream.telemetry.slots import Slots


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """What is known of a stream once it has ended; durations in seconds.

    `first_content_s` is None if no content was written, `cancellation_s` (from the
    cause to the upstream closed) unless something ended the stream early.
    """

    api: str
    outcome: str
    duration_s: float
    first_content_s: float | None = None
    cancellation_s: float | None = None
    events: int = 0
    blocks: int = 0
    bytes_sent: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


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
        self._slots = Slots(self._layout, directory)
        info = {"version": version, "upstream": upstream}
        self._collector = SlotCollector(self._layout, self._slots.totals, info)
        self._dropped_before = 0
        self._first_content = self._histogram("time_to_first_content_seconds")
        self._gap = self._histogram("event_gap_seconds")
        self._duration = self._histogram("stream_duration_seconds")
        self._cancellation = self._histogram("cancellation_latency_seconds")
        self._gate_decision = self._histogram("gate_decision_seconds")

    def stream_started(self, api: str) -> None:
        """Count one live stream; `stream_ended` must follow, however it ends."""
        self._add("streams_live", api)

    def content_gap(self, seconds: float) -> None:
        """Observe the time between two writes of content to one client."""
        self._gap.observe(seconds)

    def stream_ended(self, record: StreamRecord) -> None:
        """Count one stream's end, with all that its record holds."""
        self._add("streams_live", record.api, amount=-1)
        self._add("streams", record.api, record.outcome)
        self._duration.observe(record.duration_s)
        if record.first_content_s is not None:
            self._first_content.observe(record.first_content_s)
        if record.cancellation_s is not None:
            self._cancellation.observe(record.cancellation_s)
        self._add("sent_bytes", amount=record.bytes_sent)
        self._add("sent_events", amount=record.events)
        self._add("sent_blocks", amount=record.blocks)
        self._add("tokens", "input", amount=record.input_tokens)
        self._add("tokens", "output", amount=record.output_tokens)

    def refused(self, reason: str) -> None:
        """Count a request refused before a stream; see `families.REFUSALS`."""
        self._add("refused", reason)

    def connection_opened(self, protocol: str) -> None:
        """Count one open connection; `connection_closed` must follow, with the same."""
        self._add("connections_open", protocol)
        self._add("connections", protocol)

    def connection_closed(self, protocol: str) -> None:
        """Count one open connection less."""
        self._add("connections_open", protocol, amount=-1)

    def guard_intervened(self, kind: str) -> None:
        """Count what the guard had to end; see `families.INTERVENTIONS`."""
        self._add("guard_interventions", kind)

    def draining(self, *, active: bool) -> None:
        """Say whether this worker is draining."""
        self._set("draining", 1.0 if active else 0.0)

    def gate_fallback(self, *, active: bool) -> None:
        """Say whether this worker's shared limits can't be reached."""
        self._set("gate_fallback", 1.0 if active else 0.0)

    def gate_failed(self, kind: str) -> None:
        """Count a shared decision that failed; see `families.GATE_FAILURES`."""
        self._add("gate_failures", kind)

    def gate_decided(self, seconds: float) -> None:
        """Observe how long one shared decision took."""
        self._gate_decision.observe(seconds)

    def log_records_dropped(self, total: int) -> None:
        """Say how many log records this process has dropped since it started."""
        self._add("log_records_dropped", amount=total - self._dropped_before)
        self._dropped_before = total

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Return content type and body for a scraper that sends `accept`."""
        return encode(self._collector, accept)

    def close(self) -> None:
        """Leave the other workers' sums; counters stay in them, gauges do not."""
        self._slots.close()

    def _histogram(self, name: str) -> _Histogram:
        return _Histogram(self._slots, self._layout, name)

    def _add(self, name: str, *labels: str, amount: float = 1.0) -> None:
        self._slots.numbers[self._layout.slot(name, *labels)] += amount

    def _set(self, name: str, value: float) -> None:
        self._slots.numbers[self._layout.slot(name)] = value

"""The metric families: what is counted, under which names, in which slot.

Every label has a closed list of values, so that no client can create time series; a
value that is not in the list counts as `other`. Hence each series has a fixed place in
one flat array of numbers, which is what makes an observation cheap and lets several
worker processes add theirs up (see `slots`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

from trio_ai_stream.wire.problems import Fault
from trio_ai_stream.wire.record import Basis, Outcome

PREFIX = "trio_ai_stream_"
OTHER = "other"

ENDPOINTS = (
    "/chat",
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
    OTHER,
)
OUTCOMES = (*(outcome.value for outcome in Outcome), OTHER)
# Few streams lived; or memory had grown by more than those that lived explain.
PASSES = ("quiet", "memory", OTHER)
# Whose doing an ending was; `none` for a whole answer.
FAULTS = (*(fault.value for fault in Fault), "none", OTHER)
# The statuses that the application answers with; `none`: the client left before one.
STATUSES = (
    *("200", "204", "301", "302", "304", "308", "400", "401", "402", "403", "404"),
    *("405", "408", "412", "413", "415", "422", "429", "499", "500", "502", "503"),
    *("504", "none", OTHER),
)
STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", OTHER)
REFUSALS = (
    "rate_limit",
    "server_permits",
    "client_permits",
    "gate_closed",
    "budget",
    "draining",
    "unauthorized",
    "forbidden",
    "invalid_request",
    "too_large",
    "too_many_bodies",
    OTHER,
)
REPLACEMENTS = ("died", "hung", "not_started", OTHER)
INTERVENTIONS = (
    "application_error",
    "bad_request",
    "body_timeout",
    "connection_error",
    "connection_refused",
    "flood",
    "handshake_failed",
    "head_timeout",
    "idle_timeout",
    "pending_overflow",
    "stream_refused",
    "write_stall",
    OTHER,
)
GateFailure = Literal[
    "timeout",
    "unavailable",
    "full",
    "dns",
    "refused",
    "tls",
    "password",
    "acl",
    "cluster",
    "descriptors",
]
"""Why the limits of all hosts could not be asked."""
GATE_FAILURES = (*get_args(GateFailure), OTHER)
USAGES = (*(basis.value for basis in Basis), OTHER)
# Those that OpenRouter's page on cancelling lists, first the ones that stop on a close
# (https://openrouter.ai/docs/api_reference/streaming), as of August 2026.
STOPPING_PROVIDERS = (
    *("OpenAI", "Azure", "Anthropic", "Fireworks", "Mancer", "Recursal", "AnyScale"),
    *("Lepton", "OctoAI", "Novita", "DeepInfra", "Together", "Cohere", "Hyperbolic"),
    *("Infermatic", "Avian", "XAI", "Cloudflare", "SFCompute", "Nineteen", "Liquid"),
    *("Friendli", "Chutes", "DeepSeek"),
)
DEAF_PROVIDERS = (
    *("Amazon Bedrock", "Groq", "Modal", "Google", "Google AI Studio", "Minimax"),
    *("HuggingFace", "Replicate", "Perplexity", "Mistral", "AI21", "Featherless"),
    *("Lynn", "Lambda", "Reflection", "SambaNova", "Inflection", "ZeroOneAI"),
    *("AionLabs", "Alibaba", "Nebius", "Kluster", "Targon", "InferenceNet"),
)
PROVIDERS = (*STOPPING_PROVIDERS, *DEAF_PROVIDERS, "Simulator", OTHER)
LEDGER_PARTS = ("journal", "database", OTHER)

# Bounds in seconds. Cancellation and gate decisions are milliseconds on loopback and a
# second is already a failure; gaps reach up to STREAM_IDLE_TIMEOUT, first content up to
# FIRST_TOKEN_TIMEOUT, durations up to STREAM_DEADLINE (their defaults).
_LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_GAP_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
_FIRST_S = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60, 180)
_DURATION_S = (0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1800)
_LAG_S = (1, 2, 5, 10, 20, 40, 80, 160, 320, 640)
_ERROR = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1)

Kind = Literal["counter", "gauge", "histogram"]
Combine = Literal["sum", "max"]
Values = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name without the prefix, help, labels with all their values.

    `combine` says how the gauges of several workers become one number. `prefix` is
    empty where the name is one that other programs use, too.
    """

    name: str
    kind: Kind
    documentation: str
    labels: tuple[tuple[str, Values], ...] = ()
    bounds: tuple[float, ...] = ()
    combine: Combine = "sum"
    prefix: str = PREFIX

    @property
    def width(self) -> int:
        """Slots of one series: a histogram has its buckets, +Inf and its sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1

    def series(self) -> Iterator[tuple[str, ...]]:
        """Yield the label values of each series, in the order of their slots."""
        yield from product(*(values for _, values in self.labels))


def _counter(name: str, text: str, prefix: str = PREFIX, **labels: Values) -> Family:
    return Family(name, "counter", text, tuple(labels.items()), prefix=prefix)


def _gauge(
    name: str,
    text: str,
    combine: Combine = "sum",
    prefix: str = PREFIX,
    **labels: Values,
) -> Family:
    values = tuple(labels.items())
    return Family(name, "gauge", text, values, combine=combine, prefix=prefix)


def _histogram(name: str, text: str, bounds: tuple[float, ...]) -> Family:
    return Family(name, "histogram", text, bounds=bounds)


FAMILIES = (
    _gauge("streams_live", "Streams alive now.", endpoint=ENDPOINTS),
    _counter(
        "streams",
        "Streams that ended, by what ended them and whose doing that was.",
        endpoint=ENDPOINTS,
        outcome=OUTCOMES,
        fault=FAULTS,
    ),
    _histogram(
        "time_to_first_content_seconds",
        "From the request to the first content written to the client.",
        _FIRST_S,
    ),
    _histogram(
        "event_gap_seconds", "Between two writes of content to one client.", _GAP_S
    ),
    _histogram("stream_duration_seconds", "A whole stream.", _DURATION_S),
    _histogram(
        "cancellation_latency_seconds",
        "From the cause that ended a stream early to its upstream being closed.",
        _LATENCY_S,
    ),
    _counter("sent_bytes", "Bytes of stream bodies written to clients."),
    _counter("sent_events", "Events written to clients."),
    _counter("sent_blocks", "Writes that carried those events."),
    _counter("tokens", "Tokens that upstream reported.", direction=("input", "output")),
    _histogram(
        "estimate_error_ratio",
        "How far an estimate of the completion's tokens was from the exact number.",
        _ERROR,
    ),
    _counter(
        "bills",
        "Bills of streams, by how they are known; a cut stream's once it is settled.",
        usage=USAGES,
    ),
    _counter("cost_usd", "Dollars on those bills.", outcome=OUTCOMES),
    _counter(
        "wasted_tokens",
        "Completion tokens billed beyond what was relayed before the stream ended.",
        provider=PROVIDERS,
    ),
    _counter(
        "cut_streams",
        "Streams that ended early and whose bill upstream told afterwards.",
        provider=PROVIDERS,
    ),
    _gauge("bills_open", "Bills of cut streams that are still looked up."),
    _counter("bills_dropped", "Bills that were not looked up: too many."),
    _histogram(
        "reconcile_lag_seconds",
        "From the end of a cut stream to its settled bill.",
        _LAG_S,
    ),
    _counter(
        "ledger_errors",
        "Writes to the ledger that failed; they are tried again.",
        part=LEDGER_PARTS,
    ),
    _counter("ledger_rows_lost", "Rows of streams that the ledger does not have."),
    _counter(
        "requests",
        "Requests that the application answered, by the status sent.",
        status=STATUSES,
    ),
    _counter(
        "upstream_responses",
        "Answers of upstream, by the class of their status.",
        status=STATUS_CLASSES,
    ),
    _gauge(
        "upstream_key_rejected",
        "Workers whose OPENROUTER_API_KEY upstream has just rejected.",
    ),
    _counter("refused", "Requests refused before a stream began.", reason=REFUSALS),
    _gauge(
        "upstream_circuit_open",
        "Workers that hardly connect to upstream, because it fails again and again.",
    ),
    _counter("upstream_attempts", "Requests of streams to upstream."),
    _counter("upstream_retries", "Those of them that were not the first."),
    _counter(
        "upstream_retries_denied",
        "Retries that did not happen because the budget was used up.",
    ),
    _gauge(
        "streams_detached",
        "Streams with a grace whose client is gone, and may come back.",
    ),
    _counter("resumed", "Times that a client came back to its stream."),
    _counter("abandoned", "Streams whose client did not come back in time."),
    _gauge("grace_log_bytes", "Bytes of events that are held for who comes back."),
    _counter(
        "grace_refused",
        "Streams that were granted no grace because GRACE_TOTAL_BYTES were held.",
    ),
    _gauge(
        "upstream_buffer_bytes",
        "Bytes of large events and documents of upstream that are held now.",
    ),
    _counter(
        "upstream_buffer_refused",
        "Streams that ended because UPSTREAM_BUFFER_BYTES were held.",
    ),
    _gauge("connections_open", "Client connections open now."),
    _counter("connections", "Client connections."),
    _counter(
        "guard_interventions",
        "Connections or writes that the server ended.",
        kind=INTERVENTIONS,
    ),
    _gauge("ready", "Workers that take new streams, as /ready says."),
    _gauge("workers_expected", "Worker processes that were asked for.", combine="max"),
    _counter(
        "worker_replacements",
        "Workers that were started in place of one, by what became of that one.",
        reason=REPLACEMENTS,
    ),
    _gauge("draining", "Workers that are draining."),
    _gauge("gate_fallback", "Workers whose shared limits can't be reached."),
    _counter("gate_failures", "Shared decisions that failed.", kind=GATE_FAILURES),
    _counter("redis_lost", "Times that Redis or Valkey was lost, or not found."),
    _histogram(
        "gate_decision_seconds",
        "One decision of the shared gate, as this worker waited for it.",
        _LATENCY_S,
    ),
    _histogram(
        "loop_lag_seconds",
        "How late a task that sleeps for a second is woken: the worker's own load.",
        _LATENCY_S,
    ),
    _gauge(
        "loop_longest_turn_seconds",
        "The longest that a worker ran without looking at its sockets, in a minute.",
        combine="max",
    ),
    _counter("loop_slow_turns", "Such runs of more than 50 ms."),
    _counter(
        "collector_passes",
        "Full passes of the garbage collector; every stream waits for one.",
        reason=PASSES,
    ),
    _gauge(
        "certificate_expiry_timestamp_seconds",
        "When the certificate that is served ends, in Unix time; 0 without TLS.",
        combine="max",
    ),
    _counter("log_records_dropped", "Log records dropped: nobody read them."),
    # As prometheus_client's own collector names them; that one knows one process only.
    _counter(
        "process_cpu_seconds",
        "Processor time of all workers, user and system.",
        prefix="",
    ),
    _gauge(
        "process_resident_memory_bytes", "Resident memory of all workers.", prefix=""
    ),
    _gauge(
        "process_open_fds",
        "Open descriptors of the worker that has most.",
        combine="max",
        prefix="",
    ),
    _gauge(
        "process_max_fds",
        "Descriptors that a worker may have.",
        combine="max",
        prefix="",
    ),
    _gauge(
        "process_start_time_seconds",
        "When the youngest worker started, in Unix time.",
        combine="max",
        prefix="",
    ),
)


class Layout:
    """The slot of every series of `families`, in one flat array of `size` numbers."""

    def __init__(self, families: Sequence[Family]) -> None:
        self.families = tuple(families)
        # By name and values; `slot` knows values that are not listed as well.
        self.offsets: dict[tuple[str, tuple[str, ...]], int] = {}
        self.gauge_slots: list[int] = []
        self.max_slots: list[int] = []
        offset = 0
        for family in self.families:
            for values in family.series():
                self.offsets[family.name, values] = offset
                if family.kind == "gauge":
                    self.gauge_slots.append(offset)
                    if family.combine == "max":
                        self.max_slots.append(offset)
                offset += family.width
        self.size = offset
        self.fingerprint = hashlib.sha256(repr(self.families).encode()).digest()[:16]

    def slot(self, name: str, *values: str) -> int:
        """Return the first slot of one series; an unlisted value counts as `other`."""
        found = self.offsets.get((name, values))
        if found is not None:
            return found
        family = next(family for family in self.families if family.name == name)
        known = tuple(
            value if value in allowed else OTHER
            for value, (_, allowed) in zip(values, family.labels, strict=True)
        )
        return self.offsets[name, known]

"""Spans by OpenTelemetry's conventions for generative AI (status: Development).

The span is the client span of one inference (`chat MODEL`), from the request to the
last token (semantic-conventions-genai 1.42). Those conventions say nothing of a stream
that was cut short, so its outcome is an attribute of ours, `gateway.stream.outcome`.
A caller that cancels is no error (HTTP conventions, semantic-conventions #3494): its
span's status stays unset and it has no `error.type`. Neither prompt nor content is in
any attribute.
"""

from __future__ import annotations

import time

from opentelemetry.context import Context
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from trio_ai_stream.wire.record import Outcome, Record

SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai/1.42.0"

NO_ERROR = frozenset(
    {
        Outcome.COMPLETED,
        Outcome.CLIENT_DISCONNECTED,
        Outcome.CLIENT_STALLED,
        Outcome.CANCELLED,
        Outcome.ABANDONED,
    }
)
"""Outcomes that the client chose, or that are none of the server's and upstream's."""


class SpanTracer:
    """Makes one span for each ended stream."""

    def __init__(self, provider: TracerProvider, upstream: str) -> None:
        self._provider = provider
        self._upstream = upstream
        self._tracer = provider.get_tracer("trio_ai_stream", schema_url=SCHEMA_URL)
        self._propagator = TraceContextTextMapPropagator()

    def stream_ended(self, record: Record, traceparent: str | None) -> None:
        """Record the stream as a span that ends now, as a child of the caller's."""
        carrier = {} if traceparent is None else {"traceparent": traceparent}
        end = time.time_ns()
        span = self._tracer.start_span(
            f"chat {record.model}",
            context=self._propagator.extract(carrier, context=Context()),
            kind=SpanKind.CLIENT,
            attributes=self._attributes(record),
            start_time=end - int(record.duration_s * 1e9),
        )
        if record.outcome not in NO_ERROR:
            span.set_attribute("error.type", record.outcome)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def close(self) -> None:
        """Send what is left and stop the exporter's thread."""
        self._provider.shutdown()

    def _attributes(self, record: Record) -> dict[str, AttributeValue]:
        reasons = None if record.finish_reason is None else [record.finish_reason]
        found: dict[str, AttributeValue | None] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self._upstream,
            "gen_ai.request.model": record.model,
            "gen_ai.request.stream": record.streamed,
            "gen_ai.response.id": record.generation_id,
            "gen_ai.response.finish_reasons": reasons,
            "gen_ai.response.time_to_first_chunk": record.first_content_s,
            "gen_ai.usage.input_tokens": record.bill.prompt_tokens,
            "gen_ai.usage.output_tokens": record.bill.completion_tokens,
            "gateway.stream.outcome": str(record.outcome),
            "gateway.stream.fault": record.fault,
            "gateway.stream.events": record.events,
            "gateway.stream.cancel_latency": record.cancel_latency_s,
            "gateway.stream.resumes": record.resumes or None,
            "gateway.stream.detached": record.detached_s or None,
            "gateway.usage.basis": str(record.bill.basis),
            "gateway.usage.cost_usd": record.bill.cost_usd,
            "gateway.request_id": record.request_id,
        }
        return {name: value for name, value in found.items() if value is not None}


def exporting_provider(version: str) -> TracerProvider:
    """Return a provider that sends to the collector of OTEL_EXPORTER_OTLP_*."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource.create({SERVICE_NAME: "trio-ai-stream", SERVICE_VERSION: version})
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over our own name; the SDK's
    # `unknown_service`, which stands where neither is set, does not.
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider

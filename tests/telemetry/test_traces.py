"""Traces: what a span says of a stream, and that there is none unless asked for."""

from __future__ import annotations

import io
from urllib.parse import unquote

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.support.otlp import otlp_receiver
from tests.support.records import ended
from trio_ai_stream.settings import SettingsError
from trio_ai_stream.telemetry.log_rendering import forget_secrets, redact
from trio_ai_stream.telemetry.logs import configure_logging
from trio_ai_stream.telemetry.otel import NO_ERROR, SCHEMA_URL, SpanTracer
from trio_ai_stream.telemetry.traces import open_tracer
from trio_ai_stream.wire.record import Basis, Bill, Outcome, Record

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def span_of(record: Record, traceparent: str | None = None) -> ReadableSpan:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = SpanTracer(provider, "simulator")
    tracer.stream_ended(record, traceparent)
    tracer.close()
    (span,) = exporter.get_finished_spans()
    return span


def test_a_span_follows_the_genai_conventions() -> None:
    """Name, kind, duration and attributes are the conventions' own."""
    span = span_of(
        ended(
            duration_s=2.5,
            first_content_s=0.25,
            finish_reason="stop",
            generation_id="gen-1",
            bill=Bill(Basis.EXACT, 3, 5, cost_usd=0.25),
            events=7,
        )
    )
    assert span.name == "chat maker/model"
    assert span.kind is SpanKind.CLIENT
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == 2_500_000_000
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "simulator",
        "gen_ai.request.model": "maker/model",
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "gen-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 5,
        "gateway.usage.basis": "exact",
        "gateway.usage.cost_usd": 0.25,
        "gateway.stream.outcome": "completed",
        "gateway.stream.events": 7,
        "gateway.request_id": "r-1",
    }


@pytest.mark.parametrize("outcome", Outcome)
def test_only_failures_are_errors(outcome: Outcome) -> None:
    """What the client chose leaves the status unset; what failed names its outcome."""
    span = span_of(ended(outcome=outcome, cancel_latency_s=0.001))
    attributes = dict(span.attributes or {})
    assert attributes["gateway.stream.outcome"] == outcome
    if outcome in NO_ERROR:
        assert span.status.status_code is StatusCode.UNSET
        assert "error.type" not in attributes
    else:
        assert span.status.status_code is StatusCode.ERROR
        assert attributes["error.type"] == outcome


def test_a_span_is_the_child_of_the_callers() -> None:
    """The client's traceparent is the parent; rubbish in its place is ignored."""
    child, orphan = span_of(ended(), PARENT), span_of(ended(), "rubbish")
    assert child.parent is not None
    assert f"{child.parent.span_id:016x}" == "b7ad6b7169203331"
    assert f"{child.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert orphan.parent is None


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_a_collector_nothing_is_traced(environ: dict[str, str]) -> None:
    """There is no tracer where OpenTelemetry is not configured or is disabled."""
    assert open_tracer(environ, provider="simulator", version="1") is None


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "trio-ai-stream"),
        ({"OTEL_SERVICE_NAME": "chat"}, "chat"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=talk,team=a"}, "talk"),
    ],
)
def test_spans_reach_the_configured_collector(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], name: str
) -> None:
    """The collector gets the span under our name, or under the environment's."""
    with otlp_receiver() as receiver:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        others = {
            "OTEL_EXPORTER_OTLP_HEADERS": "x-team=a",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        }
        for key, value in {**endpoint, **others, **environ}.items():
            monkeypatch.setenv(key, value)
        tracer = open_tracer(endpoint, provider="simulator", version="1.2")
        assert tracer is not None
        tracer.stream_ended(ended(streamed=False), PARENT)
        tracer.close()
    (span,) = receiver.spans
    assert span.name == "chat maker/model"
    assert span.resource["service.name"] == name
    assert span.resource["service.version"] == "1.2"
    assert span.attributes["gen_ai.request.stream"] is False
    assert span.schema_url == SCHEMA_URL
    assert (span.trace, span.parent) == (PARENT[3:35], PARENT[36:52])
    assert not span.failed
    assert receiver.headers[0]["x-team"] == "a"


COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


def test_what_the_sdk_refuses_is_a_bad_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words are said, and the start ends as with every bad setting."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")  # less than a batch
    with pytest.raises(SettingsError, match="equal to max_queue_size"):
        open_tracer(COLLECTOR, provider="simulator", version="1")


@pytest.mark.parametrize(
    "headers", ["authorization=Bearer%20sk-collector", "authorization: sk-collector"]
)
def test_headers_for_the_collector_are_secret(
    monkeypatch: pytest.MonkeyPatch, headers: str
) -> None:
    """The SDK logs one that it cannot read, with the password that stands there."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
    environ = {**COLLECTOR, "OTEL_EXPORTER_OTLP_HEADERS": f"x-team=a, {headers}"}
    out = io.StringIO()
    configure_logging(stream=out)
    try:
        tracer = open_tracer(environ, provider="simulator", version="1")
        assert tracer is not None
        tracer.close()
        assert ("Header format invalid" in out.getvalue()) == (":" in headers)
        assert "sk-collector" not in out.getvalue()
        for said in headers, unquote(headers):
            assert "sk-collector" not in redact(f"got {said}")
    finally:
        forget_secrets()
        configure_logging()

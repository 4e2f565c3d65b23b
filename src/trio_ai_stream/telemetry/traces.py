"""Traces of streams, if somebody collects them: one span for each upstream answer.

The span is made from the stream's own record when the stream has ended, with the times
that it had; so tracing costs a live stream nothing, and a stream that is cut short in
any way has its span like every other. There is no tracer unless the extra `otel` is
installed and OpenTelemetry's own environment names a collector.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Protocol
from urllib.parse import unquote

import trio
from loguru import logger

from trio_ai_stream.settings import SettingsError
from trio_ai_stream.telemetry.log_rendering import register_secret
from trio_ai_stream.wire.record import Record

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")


class Tracer(Protocol):
    """Records ended streams as spans."""

    def stream_ended(self, record: Record, traceparent: str | None) -> None:
        """Record one stream; `traceparent` is the client's header (W3C), if any."""
        ...

    def close(self) -> None:
        """Send what is left; blocks, so call it in a thread and bound it."""
        ...


def open_tracer(
    environ: Mapping[str, str], *, provider: str, version: str
) -> Tracer | None:
    """Return the tracer that the environment asks for, if any.

    `provider` names the upstream (`openrouter`, `simulator`). The batches are sent by
    the exporter's own thread, which only exists where a collector is configured.

    :raises SettingsError: the SDK refuses what else the environment says to it.
    """
    wanted = any(environ.get(name) for name in _ENDPOINTS)
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not wanted or disabled or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    if find_spec("opentelemetry") is None:
        logger.warning(
            "a trace collector is configured, but the extra `otel` is not installed",
            event="traces_unavailable",
        )
        return None
    for name in _HEADERS:
        # The SDK logs what it cannot read of them, and a password stands there.
        for header in environ.get(name, "").split(","):
            register_secret(header.strip())
            register_secret(unquote(header.partition("=")[2]).strip())
    try:
        from trio_ai_stream.telemetry import otel

        return otel.SpanTracer(otel.exporting_provider(version), provider)
    except ValueError as exc:
        raise SettingsError([f"OTEL_*: the OpenTelemetry SDK says: {exc}"]) from exc


async def close_tracer(tracer: Tracer) -> None:
    """Wait for the worker's end; then send the spans that are left, in a bound."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.move_on_after(1, shield=True):
            await trio.to_thread.run_sync(tracer.close, abandon_on_cancel=True)

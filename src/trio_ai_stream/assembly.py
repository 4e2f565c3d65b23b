"""Wires the rooms: `create_app(settings)` makes one process's application."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any

import trio
from loguru import logger

from trio_ai_stream.admission.decision import Quota
from trio_ai_stream.admission.directory import LocalDirectory
from trio_ai_stream.admission.gate import LocalGate
from trio_ai_stream.admission.permits import StreamPermits
from trio_ai_stream.http.application import Application
from trio_ai_stream.http.services import Services
from trio_ai_stream.server.guard import counters
from trio_ai_stream.settings import Settings
from trio_ai_stream.simulator.server import Simulator
from trio_ai_stream.stream.budgets import Budgets
from trio_ai_stream.stream.listing import LiveStreams
from trio_ai_stream.stream.record import Record
from trio_ai_stream.stream.registry import Registry
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.telemetry.rundirectory import RunDirectory, join_run_directory
from trio_ai_stream.telemetry.sampling import run_sampling
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.transport import Transport
from trio_ai_stream.upstream.transport.dial import Connect
from trio_ai_stream.wire.keys import KeyRing


def create_app(settings: Settings, *, connect: Connect | None = None) -> Application:
    """Make the application of a process; its services start with the lifespan.

    `connect` stands for the network to upstream, if it is given: the sweep's is memory.
    """
    run_directory = join_run_directory()
    metrics = Metrics(
        version=version("trio-ai-stream"),
        upstream=settings.upstream_kind,
        directory=None if run_directory is None else run_directory.path,
    )
    registry = Registry()
    services = Services(
        settings=settings,
        budgets=Budgets(
            first_token_s=settings.FIRST_TOKEN_TIMEOUT_SECS,
            idle_s=settings.STREAM_IDLE_TIMEOUT_SECS,
            deadline_s=settings.STREAM_DEADLINE_SECS,
            heartbeat_s=settings.HEARTBEAT_SECS,
            write_s=settings.WRITE_TIMEOUT_SECS,
        ),
        gate=LocalGate(
            Quota.per_second(settings.RATE_LIMIT),
            StreamPermits(settings.MAX_CONCURRENT_STREAMS),
        ),
        registry=registry,
        directory=LocalDirectory(LiveStreams(registry)),
        observe=log_record,
        metrics=metrics,
        keys=KeyRing(settings.api_keys, settings.admin_keys),
    )

    async def start(nursery: trio.Nursery) -> None:
        await start_services(services, connect, nursery)
        nursery.start_soon(count, services, run_directory, name="metrics")

    return Application(services, start)


async def start_services(
    services: Services, connect: Connect | None, nursery: trio.Nursery
) -> None:
    """Start what lives as long as the worker: gate, upstream, simulator."""
    settings = services.settings
    await nursery.start(services.gate.run)
    base_url, key = settings.OPENROUTER_BASE_URL, settings.OPENROUTER_API_KEY
    headers = {"User-Agent": "trio-ai-stream"}
    if settings.upstream_kind == "simulator":
        address = await nursery.start(partial(Simulator().serve, host="127.0.0.1"))
        base_url = f"http://127.0.0.1:{address[1]}/api/v1"
        logger.warning(
            "no OPENROUTER_API_KEY: the embedded simulator answers, not a model",
            event="simulator_upstream",
        )
    elif key is not None:
        headers["Authorization"] = f"Bearer {key.get_secret_value()}"
    if settings.OPENROUTER_REFERER:
        headers["HTTP-Referer"] = settings.OPENROUTER_REFERER
    if settings.OPENROUTER_TITLE:
        headers["X-OpenRouter-Title"] = settings.OPENROUTER_TITLE
    upstream = OpenRouter(
        Transport(connect=connect),
        base_url=base_url,
        kind=settings.upstream_kind,
        headers=headers,
        connect_s=settings.CONNECT_TIMEOUT_SECS,
    )
    services.upstream = upstream
    nursery.start_soon(_close_with_nursery, upstream, name="upstream")


async def count(services: Services, run_directory: RunDirectory | None) -> None:
    """Keep the metrics current; when the worker ends, leave the other workers' sums."""
    metrics = services.metrics
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_sampling, metrics, counters)
            await services.registry.draining.wait()
            metrics.draining(active=True)
    finally:
        metrics.close()
        if run_directory is not None:
            run_directory.close()


async def _close_with_nursery(upstream: OpenRouter) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.move_on_after(1, shield=True):
            await upstream.aclose()


def log_record(record: Record) -> None:
    """Write the one `stream ended` record of a stream."""
    fields: dict[str, Any] = {
        "event": "stream_ended",
        "outcome": record.outcome.value,
        "detail": record.detail or None,
        "endpoint": record.endpoint,
        "model": record.model,
        "first_token_ms": _ms(record.first_content_s),
        "cancel_latency_ms": _ms(record.cancel_latency_s),
        "duration_ms": _ms(record.duration_s),
        "events": record.events,
        "blocks": record.blocks,
        "bytes": record.bytes_out,
        "attempts": record.attempts,
        "told": record.told,
        "finish_reason": record.finish_reason,
        "generation_id": record.generation_id,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
    }
    logger.bind(request_id=record.request_id).info("stream ended", **fields)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)

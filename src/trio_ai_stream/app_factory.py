"""Wires the rooms: `create_app(settings)` makes one process's application."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import trio
from loguru import logger

from trio_ai_stream.admission.admission_factory import open_admission
from trio_ai_stream.admission.directory import SOCKET_OF
from trio_ai_stream.admission.gate import Quota
from trio_ai_stream.billing.billing import open_billing
from trio_ai_stream.http.application import Application, peer_app
from trio_ai_stream.http.probes import management_app, readiness
from trio_ai_stream.http.services import Services
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.serving import counters
from trio_ai_stream.server.side_listener import (
    MANAGEMENT_LIMITS,
    listen_tcp,
    listen_unix,
    serve_beside,
)
from trio_ai_stream.server.sockets import address_text
from trio_ai_stream.server.supervisor import REPLACES_VARIABLE
from trio_ai_stream.settings import Settings, load_settings
from trio_ai_stream.settings.loading import reloaded
from trio_ai_stream.simulator.simulator import Simulator
from trio_ai_stream.stream.budgets import Budgets
from trio_ai_stream.stream.estimate import TokenEstimator
from trio_ai_stream.stream.registry import Registry
from trio_ai_stream.stream.retries import Retries, RetryBudget
from trio_ai_stream.stream.timers import TimerQueue
from trio_ai_stream.telemetry.garbage import CollectorPolicy
from trio_ai_stream.telemetry.log_rendering import register_secret
from trio_ai_stream.telemetry.logs import log_stream
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.telemetry.run_directory import RunDirectory, join_run_directory
from trio_ai_stream.telemetry.sampling import run_sampling
from trio_ai_stream.telemetry.traces import close_tracer, open_tracer
from trio_ai_stream.upstream.factory import Egress, egress_of, open_upstream
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.peer_link import PeerLink
from trio_ai_stream.upstream.transport.dial import Connect
from trio_ai_stream.wire.keys import KeyRing


def create_app(settings: Settings, *, connect: Connect | None = None) -> Application:
    """Make the application of a process; its services start with the lifespan.

    `connect` stands for the network to upstream, if it is given: the sweep's is memory.

    :raises SettingsError: what the environment says besides them, of the way to
        upstream or of traces, cannot be used, or they need an extra that is not
        installed.
    :raises PermissionError: as `join_run_directory`.
    """
    for secret in settings.secrets:
        register_secret(secret)
    egress = egress_of(settings) if connect is None else Egress()
    run_directory = join_run_directory()
    run_folder = None if run_directory is None else run_directory.path
    metrics = Metrics(
        version=version("trio-ai-stream"),
        upstream=settings.upstream_kind,
        directory=run_folder,
    )
    if reason := os.environ.get(REPLACES_VARIABLE):
        metrics.worker_replaced(reason)
    registry = Registry()
    admission = open_admission(settings, registry, metrics, run_folder)
    budgets = budgets_of(settings)
    estimator = TokenEstimator(metrics.estimate_compared)
    services = Services(
        settings=settings,
        budgets=budgets,
        gate=admission.gate,
        registry=registry,
        timer_queue=TimerQueue(),
        retries=make_retries(settings, metrics),
        directory=admission.directory,
        observe=partial(log_stream, settings.LOG_CLIENTS),
        metrics=metrics,
        estimator=estimator,
        billing=open_billing(settings, metrics, admission.gate, estimator),
        keys=key_ring(settings),
        peers=PeerLink(run_folder),
        tracer=open_tracer(
            os.environ,
            provider=settings.upstream_kind,
            version=version("trio-ai-stream"),
        ),
    )

    async def start(nursery: trio.Nursery) -> None:
        if settings.TRACE:
            # Imported only for those who ask: it knows Trio's private parts.
            from trio_ai_stream.tracing.process_trace import trace_process

            await nursery.start(trace_process, settings.TRACE_FILE)
        await nursery.start(admission.run)
        upstream = await start_upstream(services, egress, connect, nursery)
        await nursery.start(
            services.billing.run, upstream.get, lambda: services.registry
        )
        await nursery.start(services.resumables.run)
        nursery.start_soon(services.timer_queue.run, name="timer queue")
        nursery.start_soon(count, services, run_directory, name="metrics")
        await listen_for_probes(services, nursery, shared=run_directory is not None)
        await listen_for_peers(services, nursery, run_folder)
        if services.tracer is not None:
            nursery.start_soon(close_tracer, services.tracer, name="tracer")

    return Application(services, start)


async def listen_for_probes(
    services: Services, nursery: trio.Nursery, *, shared: bool
) -> None:
    """Start the listener that METRICS_PORT names, if it names one."""
    bind, limits = services.settings.management_bind, MANAGEMENT_LIMITS
    if bind is None:
        return
    sock = listen_tcp(
        bind, setting="METRICS_PORT", shared=shared, backlog=limits.backlog
    )
    serve = partial(serve_beside, management_app(services), sock, limits)
    await nursery.start(serve, name="management listener")
    logger.info(
        "probes and scrapers are answered without a key",
        event="management_listening",
        address=address_text(bind[0], sock.getsockname()[1]),
    )


async def listen_for_peers(
    services: Services, nursery: trio.Nursery, run_folder: Path | None
) -> None:
    """Start what other workers of this host, and other hosts, read streams from."""
    settings, limits = services.settings, peer_limits(services.settings)
    socks = []
    if run_folder is not None:
        path = run_folder / SOCKET_OF.format(services.resumables.process)
        socks.append(listen_unix(path, backlog=limits.backlog))
    if settings.PEER_ADDRESS is not None:
        sock = listen_tcp(
            settings.PEER_ADDRESS,
            setting="PEER_ADDRESS",
            shared=run_folder is not None,
            backlog=limits.backlog,
        )
        socks.append(sock)
    if not socks:  # compiling its routes takes as long as a stream
        return
    app = peer_app(services)
    for sock in socks:
        serve = partial(serve_beside, app, sock, limits)
        services.peer_listeners.append(
            await nursery.start(serve, name="listener for peers")
        )


def peer_limits(settings: Settings) -> Limits:
    """Return the bounds of a listener for peers: a stream has one reader."""
    limits = server_limits(settings)
    return replace(limits, connections=limits.streams)


def budgets_of(settings: Settings) -> Budgets:
    """Return how long each part of a stream may take."""
    return Budgets(
        first_token_s=settings.FIRST_TOKEN_TIMEOUT_SECS,
        idle_s=settings.STREAM_IDLE_TIMEOUT_SECS,
        deadline_s=settings.STREAM_DEADLINE_SECS,
        heartbeat_s=settings.HEARTBEAT_SECS,
        alive_s=settings.UPSTREAM_ALIVE_SECS,
        write_s=settings.WRITE_TIMEOUT_SECS,
        done_grace_s=settings.DONE_GRACE_SECS,
    )


def key_ring(settings: Settings) -> KeyRing:
    """Return all keys that the server accepts."""
    named = [(one.name, one.key.value) for one in settings.KEYS_FILE]
    return KeyRing(settings.api_keys, settings.admin_keys, named)


def make_retries(settings: Settings, metrics: Metrics) -> Retries:
    """Return the retry policy of this process, with a full budget."""
    share, floor = settings.RETRY_BUDGET_PERCENT / 100, settings.RETRY_BUDGET_FLOOR
    return Retries(RetryBudget(share=share, floor=floor), metrics.retry_denied)


def reload_settings(application: Application) -> Limits:
    """Take over the settings that may change while the process serves.

    It is said which changed ones only a restart takes over; they keep their values.

    :return: the bounds of connections that are accepted from now on.
    :raises SettingsError: nothing has changed.
    """
    services = application.services
    settings, changed, fixed = reloaded(services.settings, load_settings(unopened=True))
    for secret in settings.secrets:
        register_secret(secret)
    services.settings = settings
    services.keys = key_ring(settings)
    services.billing.spending.keys = settings.named_keys
    services.bodies.limit = settings.MAX_BODIES_BYTES
    services.gate.set_limits(
        Quota.per_second(settings.RATE_LIMIT),
        settings.MAX_CONCURRENT_STREAMS,
        settings.MAX_STREAMS_PER_CLIENT,
    )
    for listener in services.peer_listeners:
        listener.limits = peer_limits(settings)
    application.config["MAX_CONTENT_LENGTH"] = settings.MAX_BODY_BYTES
    logger.info("reloaded the settings", event="reloaded", settings=sorted(changed))
    if fixed:
        logger.warning(
            "these settings changed, and need a restart",
            event="restart_needed",
            settings=sorted(fixed),
        )
    return server_limits(settings)


def server_limits(settings: Settings) -> Limits:
    """Return the server's bounds with what an operator has chosen."""
    return Limits(
        write_stall_s=settings.WRITE_TIMEOUT_SECS,
        head_read_s=settings.READ_TIMEOUT_SECS,
        body_read_s=settings.READ_TIMEOUT_SECS,
        keep_alive_s=settings.IDLE_TIMEOUT_SECS,
        tls_handshake_s=settings.TLS_HANDSHAKE_TIMEOUT_SECS,
        connections=settings.MAX_CONNECTIONS,
        streams=settings.MAX_CONCURRENT_STREAMS,
        requests_per_connection=settings.MAX_REQUESTS_PER_CONNECTION,
        header_bytes=settings.MAX_HEADER_BYTES,
        read_ahead_bytes=settings.MAX_READ_AHEAD_BYTES,
        h2_streams=settings.H2_MAX_STREAMS,
        h2_resets=settings.H2_MAX_RESETS,
        h2_control_frames=settings.H2_MAX_CONTROL_FRAMES,
        h2_buffered_bytes=settings.H2_MAX_BUFFERED_BYTES,
        drain_s=settings.DRAIN_TIMEOUT_SECS,
        backlog=settings.MAX_CONCURRENT_STREAMS + 48,
    )


async def start_upstream(
    services: Services, egress: Egress, connect: Connect | None, nursery: trio.Nursery
) -> OpenRouter:
    """Start what answers for as long as the worker lives; say who is served."""
    settings = services.settings
    if settings.loopback_only:
        logger.info(
            "no API_KEYS: only this machine is served; set API_KEYS or ALLOW_ANONYMOUS",
            event="loopback_only",
        )
    elif not settings.keys_required:
        logger.warning(
            "ALLOW_ANONYMOUS: anybody who can connect is served", event="anonymous"
        )
    base_url = settings.OPENROUTER_BASE_URL
    if settings.upstream_kind == "simulator":
        base_url = (await nursery.start(Simulator().serve)).base_url
        logger.warning(
            "the embedded simulator answers, not a model; set OPENROUTER_API_KEY",
            event="simulator_upstream",
        )
    services.upstream = open_upstream(
        settings,
        nursery,
        base_url=base_url,
        egress=egress,
        connect=connect,
        on_status=services.metrics.upstream_answered,
    )
    return services.upstream


async def count(services: Services, run_directory: RunDirectory | None) -> None:
    """Keep the metrics current; when the worker ends, leave the other workers' sums."""
    metrics, collector = services.metrics, CollectorPolicy()

    def sample(resident: int = 0) -> None:
        reason = collector.look(len(services.registry), resident)
        if reason is not None:
            metrics.collected(reason)
        server = counters()
        metrics.server_counts(
            connections_open=server.connections_open,
            connections_total=server.connections_total,
            interventions=server.interventions,
            workers_expected=server.workers_expected,
            certificate_expires_at=server.certificate_expires_at,
        )
        upstream = services.upstream
        metrics.ready(active=readiness(services).status == "ready")
        metrics.upstream_key_rejected(
            active=upstream is not None and upstream.rejected_key
        )
        metrics.upstream_circuit_open(
            active=upstream is not None and upstream.circuit != "closed"
        )
        grace = services.resumables
        metrics.resumables(
            detached=grace.detached,
            held=grace.budget.held,
            resumed=grace.resumed,
            refused=grace.refused,
        )
        if upstream is not None:
            buffers = upstream.buffers
            metrics.upstream_buffers(held=buffers.held, refused=buffers.refused)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_sampling, metrics, sample)
            if run_directory is not None:
                nursery.start_soon(run_directory.keep_young)
            await services.registry.draining.wait()
            metrics.draining(active=True)
            sample()
    finally:
        collector.close()
        metrics.close()
        if run_directory is not None:
            run_directory.close()

"""`trio-ai-stream serve`: Hypercorn under our settings, as one process or several.

One process serves by itself. Several are supervised (`supervisor.py`): the parent binds
the sockets, each worker is this program again, started with the sockets' descriptors
and one end of a socket over which the parent says what to do and hears that it lives.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import trio
from hypercorn.config import Config, Sockets
from hypercorn.typing import AppWrapper
from hypercorn.utils import load_application

from trio_ai_stream.server.serving import installed, leaves
from trio_ai_stream.server.signals import Notifier
from trio_ai_stream.server.sockets import activated
from trio_ai_stream.server.supervisor import (
    DRAIN,
    LINK_VARIABLE,
    RELOAD,
    SKIP,
    Supervisor,
    beat,
    say_ready,
)
from trio_ai_stream.server.worker import Shutdown
from trio_ai_stream.settings import Settings, refuse_exposure
from trio_ai_stream.telemetry.logs import configure_logging

APPLICATION: Final = "trio_ai_stream.app:app"
COMMAND: Final = (sys.executable, "-m", "trio_ai_stream", "serve")
# Descriptors that a worker inherits: the listening sockets, comma-separated.
LISTEN_VARIABLE: Final = "TRIO_AI_STREAM_LISTEN_FDS"
# Whether the service manager goes on listening on them when we do no more.
SHARED_VARIABLE: Final = "TRIO_AI_STREAM_LISTEN_SHARED"


def serve(
    settings: Settings,
    *,
    application: str = APPLICATION,
    command: Sequence[str] = COMMAND,
) -> int:
    """Serve until a signal, drain, and return the exit status; then only exit.

    :param application: where Hypercorn finds it, as `module:name`.
    :param command: starts this very program again, as a worker.
    :raises SystemExit: the address cannot be bound, or the application's startup
        failed; the message says why.
    :raises OSError: the process cannot begin, for want of descriptors for one.
    :raises ActivationError: the service manager's sockets cannot be used.
    :raises SettingsError: they would let strangers in.
    """
    config = hypercorn_config(settings)
    config.application_path = application
    if binds := activated():
        config.bind = binds
        refuse_exposure(settings, [host for bind in binds if (host := _host_of(bind))])
    try:
        if LISTEN_VARIABLE in os.environ:
            bound_s = settings.WATCHDOG_TIMEOUT_SECS
            trio.run(_serve_as_worker, _load(config), config, bound_s)
        elif settings.WORKERS > 1:
            return trio.run(_supervise, settings, config, command)
        else:
            trio.run(_serve_alone, _load(config), config)
    except BaseExceptionGroup as group:
        for exc in leaves(group):
            if isinstance(exc, SystemExit):  # it says why the start failed
                raise exc from group
        raise
    else:
        return 0
    finally:
        # The interpreter would look at every object once more on its way out: half a
        # second of a shutdown on a busy core, for memory that goes back anyway.
        gc.freeze()


def hypercorn_config(settings: Settings) -> Config:
    """Return Hypercorn's configuration for our settings."""
    config = Config()
    host, port = settings.bind
    config.bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    config.worker_class = "trio"
    config.workers = settings.WORKERS
    config.include_server_header = False
    config.loglevel = settings.LOG_LEVEL.replace("TRACE", "DEBUG")
    if settings.TLS_CERT_FILE is not None:
        config.certfile = str(settings.TLS_CERT_FILE)
        config.keyfile = str(settings.TLS_KEY_FILE)
    return config


def _load(config: Config) -> AppWrapper:
    """Import the application, which installs our server."""
    return load_application(config.application_path, config.wsgi_max_body_size)


async def _serve_alone(app: AppWrapper, config: Config) -> None:
    await installed().serve(app, config, sockets=_bound(config))


async def _serve_as_worker(app: AppWrapper, config: Config, hang_s: float) -> None:
    """Serve on the sockets of the supervisor, and do what it says."""
    shutdown = Shutdown(alone=False)
    sockets = _inherited(tls=config.ssl_enabled)
    if SHARED_VARIABLE in os.environ:
        config.bind = [f"fd://{fd}" for fd in _inherited_descriptors()]
    with socket.socket(fileno=int(os.environ[LINK_VARIABLE])) as link:
        link.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, link, shutdown)
            nursery.start_soon(beat, link, hang_s / 4)
            await installed().serve(
                app,
                config,
                sockets=sockets,
                shutdown=shutdown,
                on_ready=partial(say_ready, link),
            )
            nursery.cancel_scope.cancel(reason="the worker has ended")


async def _supervise(settings: Settings, config: Config, command: Sequence[str]) -> int:
    """Serve with several processes: this program again, with the sockets handed on."""
    configure_logging(settings.LOG_LEVEL, settings.LOG_FORMAT)
    sockets = _bound(config)
    listeners = sockets.secure_sockets + sockets.insecure_sockets
    descriptors = [sock.fileno() for sock in listeners]
    notifier = Notifier()  # takes its variables from what the workers get
    environ = {**os.environ, LISTEN_VARIABLE: ",".join(map(str, descriptors))}
    if config.bind[0].startswith("fd://"):
        environ[SHARED_VARIABLE] = "1"
    supervisor = Supervisor(
        command,
        environ,
        descriptors=descriptors,
        patience_s=settings.DRAIN_TIMEOUT_SECS + 2,
        hang_s=settings.WATCHDOG_TIMEOUT_SECS,
        notifier=notifier,
    )
    try:
        return await supervisor.run(settings.WORKERS)
    finally:
        for sock in listeners:
            sock.close()


async def _obey(link: socket.socket, shutdown: Shutdown) -> None:
    """Do what the supervisor says; its death, which closes the link, means drain."""
    orders = trio.socket.from_stdlib_socket(link)
    with suppress(OSError):
        while order := await orders.recv(64):
            if RELOAD in order:
                shutdown.on_reload()
            if DRAIN in order or SKIP in order:
                shutdown.request(everywhere=True)
            if SKIP in order:
                shutdown.skip()
    shutdown.request(everywhere=True)


def _bound(config: Config) -> Sockets:
    """Bind the addresses of the configuration.

    One socket for all workers; for several Hypercorn would set SO_REUSEPORT, which lets
    a second server have the same port and half of the clients.

    :raises SystemExit: that cannot be done; the message says why.
    """
    workers, config.workers = config.workers, 1
    try:
        return config.create_sockets()
    except OSError as exc:
        where = ", ".join(config.bind)
        raise SystemExit(f"cannot listen on {where}: {exc.strerror}") from exc
    finally:
        config.workers = workers


def _host_of(bind: str) -> str:
    """Return the address of a socket that was handed over; "" for a Unix socket."""
    with socket.socket(fileno=os.dup(int(bind.removeprefix("fd://")))) as sock:
        internet = sock.family in {socket.AF_INET, socket.AF_INET6}
        return str(sock.getsockname()[0]) if internet else ""


def _inherited_descriptors() -> list[int]:
    return [int(fd) for fd in os.environ[LISTEN_VARIABLE].split(",")]


def _inherited(*, tls: bool) -> Sockets:
    sockets = [socket.socket(fileno=fd) for fd in _inherited_descriptors()]
    for sock in sockets:
        sock.setblocking(False)
    return Sockets(sockets if tls else [], [] if tls else sockets, [])

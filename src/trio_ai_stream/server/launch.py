"""`trio-ai-stream serve`: the server as one process or as several.

One process serves by itself. Several are supervised (`supervisor.py`): the parent binds
the sockets, each worker is this program again, started with the sockets' descriptors
and one end of a socket over which the parent says what to do and hears that it lives.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import trio
from hypercorn.config import Config, Sockets
from hypercorn.typing import AppWrapper
from hypercorn.utils import load_application

from trio_ai_stream.server.serving import CannotListenError, installed, leaves
from trio_ai_stream.server.side_listener import bind_tcp, hand_on
from trio_ai_stream.server.signals import Notifier
from trio_ai_stream.server.sockets import activated, address_text
from trio_ai_stream.server.supervisor import (
    DRAIN,
    LINK_VARIABLE,
    RELOAD,
    SKIP,
    Supervisor,
    beat,
    say_ready,
    say_refused,
    say_reloaded,
)
from trio_ai_stream.server.worker import Shutdown

APPLICATION: Final = "trio_ai_stream.app:app"
COMMAND: Final = (sys.executable, "-m", "trio_ai_stream", "serve")
# Descriptors that a worker inherits: the listening sockets, comma-separated.
LISTEN_VARIABLE: Final = "TRIO_AI_STREAM_LISTEN_FDS"
# Where workers may share files: looked for once, since a place may be full later.
SHARED_FILES_VARIABLE: Final = "TRIO_AI_STREAM_SHARED_FILES"
# Whether the service manager goes on listening on them when we do no more.
SHARED_VARIABLE: Final = "TRIO_AI_STREAM_LISTEN_SHARED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to serve, where, and with how many processes."""

    bind: tuple[str, int]
    workers: int
    # Certificate and key (PEM); without it TLS is not spoken.
    tls: tuple[str, str] | None
    log_level: str
    # How long workers drain, and how long one's loop may be blocked.
    drain_s: float
    hang_s: float
    # Where workers listen beside, by the setting that names it.
    beside: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    # Where Hypercorn finds the application, as `module:name`.
    application: str = APPLICATION
    # Starts this very program again, as a worker.
    command: Sequence[str] = COMMAND

    def config(self) -> Config:
        """Return Hypercorn's configuration."""
        config = Config()
        config.application_path = self.application
        config.bind = [address_text(*self.bind)]
        config.worker_class = "trio"
        config.workers = self.workers
        config.include_server_header = False
        config.loglevel = self.log_level
        if self.tls is not None:
            config.certfile, config.keyfile = self.tls
        return config


class Inheritance(Protocol):
    """What each worker starts with; it may change while the server runs."""

    @property
    def environ(self) -> Mapping[str, str]:
        """What tells a worker of the descriptor."""

    @property
    def descriptor(self) -> int:
        """Where it is; the number stays."""

    def read_again(self) -> None:
        """Do what SIGHUP asks for, for workers that start from now on.

        :raises OSError: nothing has changed.
        """


def serve(
    launch: Launch,
    *,
    check_hosts: Callable[[Sequence[str]], None],
    on_supervise: Callable[[], Inheritance],
) -> int:
    """Serve until a signal, drain, and return the exit status; then only exit.

    :param check_hosts: gets the addresses of sockets that the service manager has
        handed over, and raises if they must not be served.
    :param on_supervise: called in a parent of workers, to open its log; returns what
        the workers inherit.
    :raises SystemExit: the address cannot be bound, or the application's startup
        failed; the message says why.
    :raises OSError: the process cannot begin, for want of descriptors for one.
    :raises ActivationError: the service manager's sockets cannot be used.
    """
    config = launch.config()
    if binds := activated():
        config.bind = binds
        check_hosts([host for bind in binds if (host := _host_of(bind))])
    try:
        if LISTEN_VARIABLE in os.environ:
            trio.run(_serve_as_worker, _load(config), config, launch.hang_s)
        elif launch.workers > 1:
            return trio.run(_supervise, launch, config, on_supervise())
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
            try:
                await installed().serve(
                    app,
                    config,
                    sockets=sockets,
                    shutdown=shutdown,
                    on_ready=partial(say_ready, link),
                )
            except SystemExit as exc:
                say_refused(link, str(exc))  # for all workers, once
                raise SystemExit(1) from exc
            nursery.cancel_scope.cancel(reason="the worker has ended")


async def _supervise(launch: Launch, config: Config, inheritance: Inheritance) -> int:
    """Serve with several processes: this program again, with the sockets handed on."""
    sockets = _bound(config)
    beside = {
        setting: bind_tcp(bind, setting=setting, shared=True)
        for setting, bind in launch.beside.items()
    }
    listeners = sockets.secure_sockets + sockets.insecure_sockets
    descriptors = [sock.fileno() for sock in listeners]
    notifier = Notifier()  # takes its variables from what the workers get
    environ = {
        **os.environ,
        **inheritance.environ,
        **hand_on(beside),
        LISTEN_VARIABLE: ",".join(map(str, descriptors)),
        SHARED_FILES_VARIABLE: tempfile.gettempdir(),
    }
    if config.bind[0].startswith("fd://"):
        environ[SHARED_VARIABLE] = "1"
    supervisor = Supervisor(
        launch.command,
        environ,
        descriptors=[
            *descriptors,
            *(sock.fileno() for sock in beside.values()),
            inheritance.descriptor,
        ],
        read_again=inheritance.read_again,
        patience_s=launch.drain_s + 2,
        hang_s=launch.hang_s,
        notifier=notifier,
    )
    try:
        return await supervisor.run(launch.workers)
    finally:
        for sock in (*listeners, *beside.values()):
            sock.close()


async def _obey(link: socket.socket, shutdown: Shutdown) -> None:
    """Do what the supervisor says; its death, which closes the link, means drain."""
    orders = trio.socket.from_stdlib_socket(link)
    with suppress(OSError):
        while order := await orders.recv(64):
            if reloads := order.count(RELOAD):
                shutdown.reload(partial(say_reloaded, link, reloads))
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
        raise SystemExit(str(CannotListenError(config.bind, exc))) from exc
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

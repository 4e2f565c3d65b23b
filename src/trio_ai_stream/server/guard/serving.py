"""What takes the place of Hypercorn's `worker_serve`: one worker from start to end."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio.lifespan import Lifespan
from hypercorn.typing import AppWrapper
from hypercorn.utils import (
    LifespanFailureError,
    LifespanTimeoutError,
    repr_socket_addr,
)

from trio_ai_stream.server import config as configuration
from trio_ai_stream.server import parent
from trio_ai_stream.server.certificate import expires_at
from trio_ai_stream.server.drain import Drainable, Shutdown, first_of
from trio_ai_stream.server.guard import records
from trio_ai_stream.server.guard.counters import Tally
from trio_ai_stream.server.guard.worker import Worker
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.notify import Notifier
from trio_ai_stream.server.signals import received
from trio_ai_stream.server.sockets import Listener, allow_descriptors, listeners_of

Trigger = Callable[..., Awaitable[None]]


class Guard:
    """The bounds and the application that a worker serves under."""

    def __init__(
        self,
        limits: Limits,
        drainable: Drainable,
        reload: Callable[[], Limits] | None = None,
    ) -> None:
        self.reload = reload
        self.limits = limits
        self.drainable = drainable
        self.tally = Tally()

    async def serve(
        self,
        app: AppWrapper,
        config: Config,
        *,
        sockets: Sockets | None = None,
        shutdown_trigger: Trigger | None = None,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
        shutdown: Shutdown | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        """Serve `app` until a signal or the trigger, drain, and return.

        The signature is that of `hypercorn.trio.run.worker_serve`. `shutdown` is for a
        supervisor that says more than a trigger can, `on_ready` tells it that clients
        are served; without one that is told to the service manager.

        :raises SystemExit: the configuration is refused, or the application's startup
            failed; the message says what to do.
        """
        try:
            configuration.check(config)
        except configuration.ConfigError as exc:
            raise SystemExit(str(exc)) from exc
        self.tally.workers_expected = max(1, config.workers)
        if config.certfile is not None:
            self.tally.certificate_expires_at = expires_at(config.certfile)
        alone = shutdown_trigger is None and shutdown is None
        shutdown = shutdown or Shutdown(alone=alone)
        failures: list[str] = []
        # Where a host program serves us, the signals are the host's own.
        event = parent.event_of(shutdown_trigger)
        launched = shutdown_trigger is None or event is not None
        ours = launched and sockets is not None and _in_main_thread()
        notifier = Notifier() if ours and on_ready is None else Notifier({})

        def started(binds: list[str]) -> None:
            task_status.started(binds)
            (on_ready or notifier.ready)()

        try:
            with ExitStack() as stack:
                signals = stack.enter_context(received()) if ours else None
                async with trio.open_nursery() as nursery:
                    if signals is not None:
                        obey = partial(shutdown.obey, patient=event is not None)
                        nursery.start_soon(obey, signals)
                    if shutdown_trigger is not None:
                        nursery.start_soon(_relay, shutdown_trigger, shutdown)
                    nursery.start_soon(notifier.keep_alive)
                    nursery.start_soon(_say_stopping, shutdown, notifier)
                    await self._serve_app(
                        app, config, sockets, shutdown, started, notifier
                    )
                    nursery.cancel_scope.cancel(reason="the server has ended")
        except* (LifespanFailureError, LifespanTimeoutError) as group:
            failures += [str(exc) for exc in leaves(group)]
        if failures:
            raise SystemExit("\n".join(failures))

    async def _serve_app(
        self,
        app: AppWrapper,
        config: Config,
        sockets: Sockets | None,
        shutdown: Shutdown,
        started: Callable[[list[str]], None],
        notifier: Notifier,
    ) -> None:
        """Start the application, serve, and let it shut down."""
        state: dict[str, Any] = {}
        lifespan = Lifespan(app, config, state)
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await first_of(lifespan.wait_for_startup, shutdown.requested.wait)
            if not shutdown.requested.is_set():
                worker = Worker(app, config, state, guard=self, shutdown=shutdown)
                with ExitStack() as stack:
                    listeners = _listen(config, sockets, self.limits, stack)
                    binds = [_describe(listener) for listener in listeners]
                    for bind in binds:
                        await config.log.info(f"Running on {bind} (CTRL + C to quit)")
                    tls = configuration.tls_context(config)
                    shutdown.on_reload = partial(self._reload, worker, notifier)
                    await worker.run(listeners, tls, partial(started, binds))
            with (
                trio.move_on_after(self.limits.farewell_s),
                suppress(trio.ClosedResourceError, trio.BrokenResourceError),
            ):
                await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel(reason="the server has ended")

    def _reload(self, worker: Worker, notifier: Notifier) -> None:
        """Read settings and certificate again; connections that are open keep theirs.

        What is wrong is said, and stays as it was.
        """
        notifier.reloading()
        config = worker.config
        try:
            worker.tls = configuration.tls_context(config)
            if config.certfile is not None:
                self.tally.certificate_expires_at = expires_at(config.certfile)
                records.certificate_reloaded(config.certfile)
        except Exception as exc:
            records.reload_failed(exc)
        try:
            if self.reload is not None:
                self.limits = worker.limits = self.reload()
        except Exception as exc:
            records.reload_failed(exc)
        notifier.ready()


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """Return the exceptions of a group, however deeply they are nested."""
    found: list[BaseException] = []
    for exc in group.exceptions:
        found += leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found


async def _say_stopping(shutdown: Shutdown, notifier: Notifier) -> None:
    await shutdown.requested.wait()
    notifier.stopping()


async def _relay(trigger: Trigger, shutdown: Shutdown) -> None:
    event = parent.event_of(trigger)
    await (trigger() if event is None else parent.ordered(event))
    shutdown.request(everywhere=True)
    if event is not None:
        await parent.keep_unstuck(event)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _listen(
    config: Config, sockets: Sockets | None, limits: Limits, stack: ExitStack
) -> list[Listener]:
    """Listen with our backlog, on the sockets given or on those of the config."""
    listeners = listeners_of(config, sockets or config.create_sockets())
    for listener in listeners:
        stack.enter_context(listener.sock)
        listener.sock.listen(limits.backlog)
    allowed = allow_descriptors(limits.descriptors)
    if allowed < limits.descriptors:
        records.descriptors_scarce(limits.descriptors, allowed)
    return listeners


def _describe(listener: Listener) -> str:
    scheme, sock = "https" if listener.secure else "http", listener.sock
    return f"{scheme}://{repr_socket_addr(sock.family, sock.getsockname())}"

"""What takes the place of Hypercorn's `worker_serve`, for both launches.

`Server.serve` is one worker from start to end: signals, lifespan, sockets, drain.
`install` puts it where Hypercorn looks for it.

With `workers` of 1 and more Hypercorn starts its workers from a parent whose signal
handler sets a `multiprocessing.Event`. A second signal during that call runs the
handler again, which then waits for the lock that its own caller holds: for ever. The
worker must not wait for that lock as well, and it can let go of it, since any process
may. `workers = 0` has no such parent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import hypercorn.trio
import hypercorn.trio.run
import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio.lifespan import Lifespan
from hypercorn.typing import AppWrapper
from hypercorn.utils import (
    LifespanFailureError,
    LifespanTimeoutError,
    check_multiprocess_shutdown_event,
    repr_socket_addr,
)

from trio_ai_stream.server import config as configuration
from trio_ai_stream.server.certificate import expires_at
from trio_ai_stream.server.connection import Tally
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.signals import Notifier, received
from trio_ai_stream.server.sockets import Listener, allow_descriptors, listeners_of
from trio_ai_stream.server.worker import Drainable, Shutdown, Worker, first_of

log: Final = logging.getLogger("trio_ai_stream.server")

HYPERCORN_VERSION: Final = "0.18.0"
_POLL_S: Final = 0.1
# Setting an event takes microseconds; whoever holds the lock for so long is stuck.
_STUCK_S: Final = 0.5

Trigger = Callable[..., Awaitable[None]]


class UnsupportedHypercornError(RuntimeError):
    """The server was not written for the Hypercorn that is installed."""


class CannotListenError(Exception):
    """An address is taken, or is not this machine's."""

    def __init__(self, binds: list[str], exc: OSError) -> None:
        super().__init__(f"cannot listen on {', '.join(binds)}: {exc.strerror}")


class Server:
    """An HTTP server under Hypercorn's configuration, with bounds and a drain."""

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

        :raises SystemExit: the configuration is refused, the application's startup
            failed, or an address is taken; the message says what to do.
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
        event = event_of(shutdown_trigger)
        launched = shutdown_trigger is None or event is not None
        main_thread = threading.current_thread() is threading.main_thread()
        ours = launched and sockets is not None and main_thread
        notifier = Notifier() if ours and on_ready is None else Notifier({})

        def started(binds: list[str]) -> None:
            task_status.started(binds)
            (on_ready or notifier.ready)()

        try:
            with ExitStack() as stack:
                signals = stack.enter_context(received()) if ours else None
                async with trio.open_nursery() as nursery:
                    if signals is not None:
                        follow = partial(shutdown.follow, patient=event is not None)
                        nursery.start_soon(follow, signals)
                    if shutdown_trigger is not None:
                        nursery.start_soon(_relay, shutdown_trigger, event, shutdown)
                    nursery.start_soon(notifier.keep_alive)
                    nursery.start_soon(_say_stopping, shutdown, notifier)
                    await self._serve_app(
                        app, config, sockets, shutdown, started, notifier
                    )
                    nursery.cancel_scope.cancel(reason="the server has ended")
                if event is not None:  # nobody could help the parent after our exit
                    with trio.move_on_after(4 * _STUCK_S):
                        await keep_unstuck(event, until_free=True)
        except* (
            LifespanFailureError,
            LifespanTimeoutError,
            CannotListenError,
        ) as group:
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
                worker = Worker(
                    app,
                    config,
                    state,
                    limits=self.limits,
                    drainable=self.drainable,
                    tally=self.tally,
                    shutdown=shutdown,
                )
                with ExitStack() as stack:
                    listeners = _listen(config, sockets, self.limits, stack)
                    binds = [_describe(listener) for listener in listeners]
                    for bind in binds:
                        await config.log.info(f"Running on {bind} (CTRL + C to quit)")
                    tls = configuration.tls_context(config)
                    read_again = partial(self._reload, worker, notifier)

                    def serves() -> None:
                        started(binds)
                        shutdown.reload_by(read_again)

                    await worker.run(listeners, tls, serves)
            with (
                trio.move_on_after(self.limits.app_shutdown_s),
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
                text, event = "read the certificate %s again", "certificate_reloaded"
                log.info(text, config.certfile, extra={"event": event})
        except Exception as exc:
            _reload_failed(exc)
        try:
            if self.reload is not None:
                self.limits = worker.limits = self.reload()
        except Exception as exc:
            _reload_failed(exc)
        notifier.ready()


def _reload_failed(exc: Exception) -> None:
    text = "the reload changes nothing here: %s"
    log.error(text, exc, extra={"event": "reload_failed"})


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """Return the exceptions of a group, however deeply they are nested."""
    found: list[BaseException] = []
    for exc in group.exceptions:
        found += leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found


async def _say_stopping(shutdown: Shutdown, notifier: Notifier) -> None:
    await shutdown.requested.wait()
    notifier.stopping()


async def _relay(trigger: Trigger, event: Any, shutdown: Shutdown) -> None:
    await (trigger() if event is None else ordered(event))
    shutdown.request(everywhere=True)
    if event is not None:
        await keep_unstuck(event)


def _listen(
    config: Config, sockets: Sockets | None, limits: Limits, stack: ExitStack
) -> list[Listener]:
    """Listen with our backlog, on the sockets given or on those of the config."""
    listeners = listeners_of(config, sockets or config.create_sockets())
    for listener in listeners:
        stack.enter_context(listener.sock)
        try:
            listener.sock.listen(limits.backlog)
        except OSError as exc:  # another server's start was quicker
            raise CannotListenError([_describe(listener)], exc) from exc
    allowed = allow_descriptors(limits.descriptors)
    if allowed < limits.descriptors:
        text = (
            "MAX_CONNECTIONS and MAX_CONCURRENT_STREAMS may need %d file descriptors,"
            " and %d are allowed; raise the limit (LimitNOFILE, ulimit -n) or lower"
            " them"
        )
        event = {"event": "descriptors_scarce"}
        log.warning(text, limits.descriptors, allowed, extra=event)
    return listeners


def _describe(listener: Listener) -> str:
    scheme, sock = "https" if listener.secure else "http", listener.sock
    return f"{scheme}://{repr_socket_addr(sock.family, sock.getsockname())}"


def event_of(trigger: Trigger | None) -> Any:
    """Return the event that Hypercorn's trigger polls; None for another trigger."""
    if isinstance(trigger, partial) and (
        trigger.func is check_multiprocess_shutdown_event
    ):
        return trigger.args[0]
    return None


async def ordered(event: Any) -> None:
    """Wait until the parent orders the end, or is stuck in the middle of doing so."""
    held_s = 0.0
    while held_s < _STUCK_S:
        if event._cond.acquire(block=False):
            held_s = 0.0
            try:
                if event._flag.acquire(block=False):
                    event._flag.release()
                    return
            finally:
                event._cond.release()
        else:
            held_s += _POLL_S
        await trio.sleep(_POLL_S)


async def keep_unstuck(event: Any, *, until_free: bool = False) -> None:
    """Let a stuck parent go on, until cancelled; call it once the end is ordered.

    The innermost handler gets the lock and the outermost then finds it free, which is
    an error to it: the parent ends with a traceback and status 1, but it ends.

    :param until_free: return as soon as nobody holds the lock.
    """
    held_s = 0.0
    while True:
        if event._cond.acquire(block=False):
            held_s = 0.0
            event._cond.release()
            if until_free:
                return
        else:
            held_s += _POLL_S
        if held_s >= _STUCK_S:
            with suppress(ValueError):  # it has just been released
                event._cond.release()
        await trio.sleep(_POLL_S)


_installed: Server | None = None


def install(
    limits: Limits,
    drainable: Drainable,
    reload: Callable[[], Limits] | None = None,
) -> Server:
    """Serve from now on with this server, in this process; the newest call counts.

    Hypercorn looks `worker_serve` up in its module when a worker starts, after it has
    imported the application. So a call where the application is created covers every
    worker, under `trio-ai-stream serve` and under the plain `hypercorn` command.

    :param reload: called on SIGHUP; returns the bounds from then on, or raises a
        `ValueError` that says why all stays as it is.
    :raises UnsupportedHypercornError: the version is another than this server's.
    """
    global _installed
    found = version("hypercorn")
    if found != HYPERCORN_VERSION:
        raise UnsupportedHypercornError(
            f"expected Hypercorn {HYPERCORN_VERSION}, whose worker is replaced, "
            f"got {found}; install hypercorn=={HYPERCORN_VERSION}"
        )
    _installed = Server(limits, drainable, reload)
    hypercorn.trio.run.worker_serve = _installed.serve
    hypercorn.trio.worker_serve = _installed.serve  # type: ignore[attr-defined]
    return _installed


def installed() -> Server:
    """Return the server that this process serves with.

    :raises LookupError: the application has not installed one.
    """
    if _installed is None:
        raise LookupError("expected the application to call install(), it did not")
    return _installed


def counters() -> Tally:
    """Return what the installed server has counted; all zero without one."""
    return (Tally() if _installed is None else _installed.tally).snapshot()

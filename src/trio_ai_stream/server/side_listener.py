"""Listeners beside the first: for probes and scrapers, and for other processes.

They answer until the process exits, the drain included, when the first port is closed
already. Each has connections and bounds of its own, so that clients cannot crowd it
out.

Workers under our supervisor have one listening socket, which it has bound: whoever is
free takes the next connection. Under plain Hypercorn each binds its own
(SO_REUSEPORT), and the kernel gives each a part of the connections, also one that
hangs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config

from trio_ai_stream.server.connection import Tally
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.sockets import Listener, address_text
from trio_ai_stream.server.worker import Shutdown, Worker

# Whoever asks for the process's state asks at once; who only connects must not keep
# others from it.
MANAGEMENT_LIMITS: Final = Limits(
    connections=64, backlog=64, head_read_s=2, newest_first=True
)
# Descriptors that a worker inherits: `METRICS_PORT=7,PEER_ADDRESS=8`.
BESIDE_VARIABLE: Final = "TRIO_AI_STREAM_BESIDE_FDS"
# Bytes of a Unix socket's path (unix(7)).
LONGEST_PATH: Final = 107


class _Undrained:
    """A side listener is never drained: it ends with its process."""

    def __len__(self) -> int:
        """Return 0: what it answers is no stream."""
        return 0

    async def until_over(self) -> None:
        """Do nothing."""

    def begin_drain(self) -> None:
        """Do nothing."""

    def end_streams(self) -> bool:
        """Do nothing; there is no more to do."""
        return False


async def serve_beside(
    app: Any,
    sock: socket.socket,
    limits: Limits,
    *,
    task_status: trio.TaskStatus[Worker] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the ASGI application `app` on a listening socket until cancelled.

    The socket is closed then; one of a file system is removed. Started with the worker,
    whose `limits` may be exchanged.
    """
    worker = Worker(
        ASGIWrapper(app),
        Config(),
        {},
        limits=limits,
        drainable=_Undrained(),
        tally=Tally(),
        shutdown=Shutdown(alone=False),
    )
    with sock:
        try:
            listener = Listener(sock, secure=False)
            await worker.run([listener], None, lambda: task_status.started(worker))
        finally:
            _remove_path(sock)


def hand_on(socks: Mapping[str, socket.socket]) -> dict[str, str]:
    """Return what tells a worker of the sockets that it inherits, by setting."""
    found = ",".join(f"{setting}={sock.fileno()}" for setting, sock in socks.items())
    return {BESIDE_VARIABLE: found} if found else {}


def _inherited(setting: str) -> socket.socket | None:
    """Return the socket that the supervisor has bound for a setting, if it has."""
    for one in os.environ.get(BESIDE_VARIABLE, "").split(","):
        name, _, descriptor = one.partition("=")
        if name == setting:
            return socket.socket(fileno=int(descriptor))
    return None


def _remove_path(sock: socket.socket) -> None:
    if sock.family == socket.AF_UNIX:
        with suppress(OSError):  # gone, or on a disk that has become read-only
            Path(sock.getsockname()).unlink()


def bind_tcp(bind: tuple[str, int], *, setting: str, shared: bool) -> socket.socket:
    """Return a socket that is bound to an address, and does not listen yet.

    :param setting: the one that names the address.
    :param shared: other sockets may have the same port.
    :raises OSError: it cannot be bound; the text names the setting.
    """
    host, port = bind
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        raise _cannot_listen(bind, setting, exc) from exc
    return sock


def listen_tcp(
    bind: tuple[str, int], *, setting: str, shared: bool, backlog: int
) -> socket.socket:
    """Return a socket that listens: the one of the supervisor, or a new one.

    :raises OSError: as `bind_tcp`.
    """
    sock = _inherited(setting) or bind_tcp(bind, setting=setting, shared=shared)
    try:
        sock.listen(backlog)
    except OSError as exc:
        sock.close()
        raise _cannot_listen(bind, setting, exc) from exc
    return sock


def _cannot_listen(bind: tuple[str, int], setting: str, exc: OSError) -> OSError:
    text = f"{setting}: cannot listen on {address_text(*bind)}: {exc.strerror}"
    return OSError(exc.errno, text)


def listen_unix(path: Path, *, backlog: int) -> socket.socket:
    """Return a Unix socket that listens; who may connect is up to its directory.

    :raises OSError: it cannot be bound; the text says what to do.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise OSError(
            f"a worker's socket: expected a path of {LONGEST_PATH} bytes at most, got"
            f" {path}; set TMPDIR to a shorter one"
        )
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        sock.bind(str(path))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock

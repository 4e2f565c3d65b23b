"""The management listener: a second port for probes and scrapers.

It answers until the process exits, the drain included, when the first port is closed
already. Several workers share the port by SO_REUSEPORT; each answers for all of them.
It has connections and bounds of its own, so that clients cannot crowd it out; and who
says nothing there gives way to who comes.
"""

from __future__ import annotations

import socket
from typing import Any, Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config

from trio_ai_stream.server.connection import Tally
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.sockets import Listener
from trio_ai_stream.server.worker import Shutdown, Worker

# Whoever asks here asks at once; who only connects must not keep others from it.
LIMITS: Final = Limits(connections=64, backlog=64, head_read_s=2, newest_first=True)


class _Undrained:
    """The management listener is never drained: it ends with its process."""

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


async def serve_management(
    app: Any,
    bind: tuple[str, int],
    *,
    shared: bool,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the ASGI application `app` on `bind` until cancelled; reports the port.

    :param shared: other workers of this server listen on the same port.
    :raises OSError: the address cannot be bound; the text names the setting.
    """
    worker = Worker(
        ASGIWrapper(app),
        Config(),
        {},
        limits=LIMITS,
        drainable=_Undrained(),
        tally=Tally(),
        shutdown=Shutdown(alone=False),
    )
    with _listen(*bind, shared=shared) as sock:
        port: int = sock.getsockname()[1]
        await worker.run(
            [Listener(sock, secure=False)], None, lambda: task_status.started(port)
        )


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(LIMITS.backlog)
    except OSError as exc:
        sock.close()
        text = f"METRICS_PORT: cannot listen on {host}:{port}: {exc.strerror}"
        raise OSError(exc.errno, text) from exc
    return sock

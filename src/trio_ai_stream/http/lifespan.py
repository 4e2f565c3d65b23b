"""Start-up and shutdown: the nursery in which the services live.

Quart-Trio's own adapter cancels the nursery that its shutdown functions run in, so they
cannot await; this one cancels the nursery last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from loguru import logger

from trio_ai_stream.admission.gate import ClusterRefusedError

if TYPE_CHECKING:
    from trio_ai_stream.http.application import Application


class Lifespan:
    """The ASGI lifespan of one worker (https://asgi.readthedocs.io, lifespan 2.0)."""

    def __init__(self, app: Application, _scope: Any) -> None:
        self.app = app

    async def __call__(
        self,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Start the services, wait for shutdown, stop them; in one nursery."""
        await receive()  # lifespan.startup
        started = False
        try:
            async with trio.open_nursery() as nursery:
                self.app.nursery = nursery
                await self.app.start_services(nursery)
                started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()  # lifespan.shutdown
                await self.app.services.gate.leave()
                nursery.cancel_scope.cancel(reason="shutdown")
        except Exception as exc:
            phase = "shutdown" if started else "startup"
            cause = _only_cause(exc)
            if not isinstance(cause, ClusterRefusedError | OSError):  # no bug of ours
                logger.exception(f"{phase} of the services failed")
            await send({"type": f"lifespan.{phase}.failed", "message": str(cause)})
        else:
            await send({"type": "lifespan.shutdown.complete"})


def _only_cause(exc: Exception) -> Exception:
    """Return what a group was made for, if it is one exception."""
    while isinstance(exc, ExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc

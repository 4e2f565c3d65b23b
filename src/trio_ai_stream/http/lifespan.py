"""Start-up and shutdown: the nursery in which the services live.

Quart-Trio's own adapter cancels the nursery that its shutdown functions run in, so they
cannot await; this one cancels the nursery last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from loguru import logger

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
        async with trio.open_nursery() as nursery:
            self.app.nursery = nursery
            try:
                await self.app.start_services(nursery)
            except Exception as exc:
                logger.exception("start-up failed")
                message = f"{type(exc).__name__}: {exc}"
                await send({"type": "lifespan.startup.failed", "message": message})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
            nursery.cancel_scope.cancel(reason="shutdown")
        await send({"type": "lifespan.shutdown.complete"})

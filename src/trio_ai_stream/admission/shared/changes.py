"""The log of the link's changes: one record each, or one for many when it flaps."""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

import trio
from loguru import logger

from trio_ai_stream.admission.shared.outage import Unavailable

PERIOD_S: Final = 60.0
MOST: Final = 3
"""Losses within one period that are logged one by one."""


class Changes:
    """Logs that the shared limits were lost and are back.

    After `MOST` losses within a period there is one `gate_flapping` record a period,
    with the number of losses, until a period passes without one.
    """

    def __init__(self, policy: Literal["local", "open", "closed"]) -> None:
        self._policy = policy
        self._losses: deque[float] = deque()
        self._reason: Unavailable | None = None
        self._processes = 1
        self._flapping = trio.Event()

    def changed(self, reason: Unavailable | None, processes: int) -> None:
        """Log that the link was lost, for a reason, or is up, if it does not flap."""
        self._reason, self._processes = reason, processes
        if reason is not None:
            self._losses.append(trio.current_time())
        if self._flapping.is_set():
            return
        self._forget_old()
        if len(self._losses) > MOST:
            self._log_flapping()
            self._flapping.set()
        else:
            self._log_state()

    async def run(self) -> None:
        """Log once a period while the link flaps, until cancelled."""
        while True:
            await self._flapping.wait()
            while self._losses:
                self._losses.clear()
                await trio.sleep(PERIOD_S)
                if self._losses:
                    self._log_flapping()
            self._flapping = trio.Event()
            self._log_state()

    def _forget_old(self) -> None:
        oldest = trio.current_time() - PERIOD_S
        while self._losses and self._losses[0] < oldest:
            self._losses.popleft()

    def _log_state(self) -> None:
        if self._reason is None:
            logger.info(
                "limits are shared", event="gate_shared", processes=self._processes
            )
        else:
            logger.warning(
                "shared limits are out of reach; falling back",
                event="gate_fallback",
                policy=self._policy,
                cause=str(self._reason),
            )

    def _log_flapping(self) -> None:
        logger.warning(
            "shared limits come and go",
            event="gate_flapping",
            policy=self._policy,
            losses=len(self._losses),
            cause=None if self._reason is None else str(self._reason),
        )

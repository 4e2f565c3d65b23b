"""The signals of a serving process, from its first moment to its last."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT)
# Without a meaning here; left alone they would end the process.
_IGNORED: Final = (signal.SIGUSR1, signal.SIGUSR2)

_early: list[int] = []


def remember_early() -> None:
    """Keep what comes before `received` waits for it, if this is process 1.

    The kernel drops signals to process 1 that it has no handler for; any other process
    they simply end, and nothing has begun yet.
    """
    if os.getpid() == 1:
        for signum in ENDING:
            signal.signal(signum, _remember)


@contextmanager
def received() -> Iterator[AsyncIterator[int]]:
    """Receive SIGTERM, SIGINT and SIGHUP; ignore SIGUSR1 and SIGUSR2.

    For a process that only exits afterwards: until then no signal changes its status.
    """
    import trio  # not at the top: `remember_early` comes before such imports

    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    # What the receiver puts back at its end: no signal is to find the default then.
    for signum in (*ENDING, signal.SIGHUP):
        signal.signal(signum, _remember)
    try:
        with trio.open_signal_receiver(*ENDING, signal.SIGHUP) as signals:
            yield _all(signals)
    finally:
        for signum in (*ENDING, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)


def _remember(signum: int, _frame: FrameType | None) -> None:
    _early.append(signum)


async def _all(signals: AsyncIterator[int]) -> AsyncIterator[int]:
    while _early:
        yield _early.pop(0)
    async for signum in signals:
        yield signum

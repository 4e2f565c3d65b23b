"""Hypercorn's own parent process: its order to end, taken without waiting for its lock.

With `workers` of 1 and more Hypercorn starts its workers from a parent whose signal
handler sets a `multiprocessing.Event`. A second signal during that call runs the
handler again, which then waits for the lock that its own caller holds: for ever. The
worker must not wait for that lock as well, and it can let go of it, since any process
may. `workers = 0` has no such parent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio
from hypercorn.utils import check_multiprocess_shutdown_event

_POLL_S: Final = 0.1
# Setting an event takes microseconds; whoever holds the lock for so long is stuck.
_STUCK_S: Final = 0.5


def event_of(trigger: Callable[..., Awaitable[None]] | None) -> Any:
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


async def keep_unstuck(event: Any) -> None:
    """Let a stuck parent go on, until cancelled; call it once the end is ordered.

    The innermost handler gets the lock and the outermost then finds it free, which is
    an error to it: the parent ends with a traceback and status 1, but it ends.
    """
    held_s = 0.0
    while True:
        if event._cond.acquire(block=False):
            held_s = 0.0
            event._cond.release()
        else:
            held_s += _POLL_S
        if held_s >= _STUCK_S:
            with suppress(ValueError):  # it has just been released
                event._cond.release()
        await trio.sleep(_POLL_S)

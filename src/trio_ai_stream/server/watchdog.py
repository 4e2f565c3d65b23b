"""A worker's heartbeat, and the supervisor's ear: a loop that is blocked is noticed.

Both ends of one socket: the worker writes a byte from its loop, and once it serves
another one; the supervisor's orders go the other way.
"""

from __future__ import annotations

import faulthandler
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

BEAT: Final = b"."
READY: Final = b"!"
# From the fork to the first beat: imports, on a machine that is busy.
_STARTUP_S: Final = 60.0
# How long a worker may take to write down where it stands.
_STACK_S: Final = 0.5


async def beat(link: socket.socket, every_s: float) -> None:
    """Write a byte at each turn, until cancelled; nobody there is no error."""
    while True:
        with suppress(OSError):
            link.send(BEAT)
        await trio.sleep(every_s)


def say_ready(link: socket.socket) -> None:
    """Tell the supervisor that clients are served.

    From here on SIGUSR1 makes the interpreter write down where its threads stand, even
    while Python code does not return to the loop.
    """
    faulthandler.register(signal.SIGUSR1, file=link.fileno(), all_threads=True)
    with suppress(OSError):
        link.send(READY)


async def until_hung(
    link: trio.socket.SocketType, bound_s: float, on_ready: Callable[[], None]
) -> None:
    """Return once a worker has said nothing for `bound_s`, or has closed its end."""
    within_s = max(bound_s, _STARTUP_S)
    while True:
        data = b""
        with trio.move_on_after(within_s) as scope, suppress(OSError):
            data = await link.recv(4096)
        if scope.cancelled_caught:
            if trio.current_time() < scope.deadline + 1:
                return
            continue  # this process was stopped as well: listen once more
        if not data:
            await trio.sleep(bound_s)  # it is about to exit, or it hangs there
            return
        within_s = bound_s
        if READY in data:
            on_ready()


async def stack_of(process: trio.Process, link: trio.socket.SocketType) -> str:
    """Ask a hung worker where it stands; "" if it is stopped and cannot say."""
    process.send_signal(signal.SIGUSR1)
    said = b""
    with trio.move_on_after(_STACK_S), suppress(OSError):
        while data := await link.recv(65_536):
            said += data
    return said.decode(errors="replace").strip(".!\n")

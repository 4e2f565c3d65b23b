"""A serving process and the system: signals, and what the service manager is told.

Importing it is cheap and imports no Trio: `remember_early` comes before such imports.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import contextmanager
from types import FrameType
from typing import Final

log: Final = logging.getLogger("trio_ai_stream.server")

ENDING: Final = (signal.SIGTERM, signal.SIGINT)
# Without a meaning here; left alone they would end the process.
_IGNORED: Final = (signal.SIGUSR1, signal.SIGUSR2)

_early: list[int] = []


def remember_early() -> None:
    """Keep what comes before `received` waits for it: SIGHUP, and all to process 1.

    Whoever has a server reload that was only started does not mean to end it. To
    process 1 the kernel drops signals that it has no handler for; any other process
    they simply end, and nothing has begun yet: no KeyboardInterrupt shows a person with
    Ctrl-C the inside of an import. SIGUSR1 and SIGUSR2 end nothing, here and in the
    processes that this one starts.
    """
    _ignore_the_meaningless()
    # Nohup has it ignored.
    if signal.getsignal(signal.SIGHUP) in (signal.SIG_DFL, signal.SIG_IGN):
        signal.signal(signal.SIGHUP, _remember)
    if os.getpid() == 1:
        for signum in ENDING:
            signal.signal(signum, _remember)
    elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def received() -> Iterator[AsyncIterator[int]]:
    """Receive SIGTERM, SIGINT and SIGHUP; ignore SIGUSR1 and SIGUSR2.

    For a process that only exits afterwards: until then no signal changes its status.
    """
    import trio

    _ignore_the_meaningless()
    # What the receiver puts back at its end: no signal is to find the default then.
    for signum in (*ENDING, signal.SIGHUP):
        signal.signal(signum, _remember)
    try:
        with trio.open_signal_receiver(*ENDING, signal.SIGHUP) as signals:
            yield _all(signals)
    finally:
        for signum in (*ENDING, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)


def _ignore_the_meaningless() -> None:
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)


def _remember(signum: int, _frame: FrameType | None) -> None:
    _early.append(signum)


async def _all(signals: AsyncIterator[int]) -> AsyncIterator[int]:
    while _early:
        yield _early.pop(0)
    async for signum in signals:
        yield signum


class Notifier:
    """Datagrams to the socket of NOTIFY_SOCKET (sd_notify(3)); without one none."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Take the variables out of `environ`: they are for this process alone."""
        self._address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        meant = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        alive = bool(self._address) and meant and microseconds.isdecimal()
        self._watchdog_s = int(microseconds) / 1e6 if alive else 0.0
        self._stopping = False

    def ready(self, status: str = "serving") -> None:
        """Say that clients are served, or that a reload is over; not in a drain."""
        if not self._stopping:
            self._say("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that a reload has begun, which `ready` ends; not in a drain."""
        if not self._stopping:
            now_us = time.monotonic_ns() // 1000
            self._say("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        """Say that the drain has begun."""
        self._stopping = True
        self._say("STOPPING=1", "STATUS=draining")

    async def keep_alive(self) -> None:
        """Say at twice the rate that is asked for that the loop turns; until cancelled.

        A loop that is blocked says nothing, and the manager starts the service again.
        """
        import trio

        while self._watchdog_s:
            self._say("WATCHDOG=1", within_s=0)
            await trio.sleep(self._watchdog_s / 2)

    def _say(self, *lines: str, within_s: float = 1) -> None:
        """Send the lines; waits in the loop for a manager that is slow to read."""
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(within_s)
                sock.sendto("\n".join(lines).encode(), address)
        except OSError as exc:
            text = "NOTIFY_SOCKET: cannot tell the service manager: %s"
            log.warning(text, exc, extra={"event": "notify_failed"})

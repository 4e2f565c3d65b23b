"""What the service manager is told: ready, alive, stopping (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

import trio

log = logging.getLogger("trio_ai_stream.guard")


class Notifier:
    """Datagrams to the socket of NOTIFY_SOCKET; without one nothing is said."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Take the variables out of `environ`: they are for this process alone."""
        self._address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        meant = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        alive = bool(self._address) and meant and microseconds.isdigit()
        self._watchdog_s = int(microseconds) / 1e6 if alive else 0.0

    def ready(self, status: str = "serving") -> None:
        """Say that clients are served, or that a reload is over."""
        self._say("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that a reload has begun; `ready` ends it."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the drain has begun."""
        self._say("STOPPING=1", "STATUS=draining")

    async def keep_alive(self) -> None:
        """Say at twice the rate that is asked for that the loop turns; until cancelled.

        A loop that is blocked says nothing, and the manager starts the service again.
        """
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

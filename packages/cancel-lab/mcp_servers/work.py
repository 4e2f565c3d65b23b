"""The tool that reports its own life, for Python's SDKs; see `cancel_lab/mcp/life.py`.

It works for some seconds, and says so every 10 ms in a datagram. Each server beside
this file gives it to its SDK as the tool `work`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable

STEP_S = 0.01
Report = Callable[[int], Awaitable[None]]


class Reporter:
    """Sends what the tool says of itself to the probe, which waits for it."""

    def __init__(self, run: str) -> None:
        self._run = run
        host, _, port = os.environ["CANCEL_LAB_REPORT"].rpartition(":")
        self._address = (host, int(port))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def say(self, event: str, how: str = "") -> None:
        """Send one report: `started`, `alive` or `ended`."""
        report = {"run": self._run, "event": event, "how": how}
        self._socket.sendto(json.dumps(report).encode(), self._address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


async def work(run: str, seconds: float, progress: int, report: Report) -> str:
    """Work for `seconds`, and report progress `progress` times, one step apart.

    Cancellation: is reported under the exception's name, and goes on.
    """
    loop = asyncio.get_running_loop()
    reporter = Reporter(run)
    reporter.say("started")
    until = loop.time() + seconds
    reported = 0
    try:
        while loop.time() < until:
            reporter.say("alive")
            if reported < progress:
                reported += 1
                await report(reported)
            await asyncio.sleep(STEP_S)
        reporter.say("ended", "finished")
    except BaseException as exc:
        reporter.say("ended", type(exc).__name__)
        raise
    finally:
        reporter.close()
    return run

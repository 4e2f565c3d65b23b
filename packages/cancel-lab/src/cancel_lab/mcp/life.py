"""What the measured tool says of its own life, in datagrams.

A tool `work` in the server under test takes `run`, `seconds` and `progress`. It sends
JSON to the address in the variable `CANCEL_LAB_REPORT`, one datagram each: `started`,
`alive` every 10 ms, `ended` with `how` (`finished`, or the name of the exception that
ended it). Datagrams, because they need one line in any language and block nobody.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from cancel_lab.mcp.messages import printable

VARIABLE = "CANCEL_LAB_REPORT"
FINISHED = "finished"
# A tool that says nothing for a hundred of its steps has been cut without a word. On a
# busy machine a tool was seen to be late by twenty steps while it worked on.
SILENCE_S = 1.0
DATAGRAM_BYTES = 4096


@dataclass
class Life:
    """One run of the tool, as far as it has told; times are CLOCK_MONOTONIC in ns."""

    started_ns: int | None = None
    alive_ns: int | None = None
    ended_ns: int | None = None
    how: str = ""

    def __post_init__(self) -> None:
        """Make the event that the next report sets."""
        self._told = trio.Event()

    def tell(self, event: str, how: str, now_ns: int) -> None:
        """Take one report."""
        self.alive_ns = now_ns
        if event == "started":
            self.started_ns = now_ns
        elif event == "ended":
            self.ended_ns = now_ns
            self.how = how
        self._told.set()
        self._told = trio.Event()

    async def started(self) -> None:
        """Wait until the tool works."""
        while self.started_ns is None:
            await self._told.wait()

    async def over(self) -> None:
        """Wait until the tool has ended, or has been silent for `SILENCE_S`.

        Silence ends a life at the last report, in `how` as `silence`.
        """
        while self.ended_ns is None:
            with trio.move_on_after(SILENCE_S) as waiting:
                await self._told.wait()
            if waiting.cancelled_caught and self.ended_ns is None:
                self.ended_ns = self.alive_ns
                self.how = "silence"


class LifeReports:
    """Receives the reports of all runs on one port of the loopback interface."""

    def __init__(self, receiver: trio.socket.SocketType) -> None:
        """Made by `listening`."""
        self._receiver = receiver
        self._lives: dict[str, Life] = {}
        self.heard = False  # one of the runs that were asked for has told something

    @property
    def address(self) -> str:
        """Where the tool reports to: the value of `CANCEL_LAB_REPORT`."""
        host, port = self._receiver.getsockname()
        return f"{host}:{port}"

    def life(self, run: str) -> Life:
        """Return the life of one run, which is heard from now on."""
        return self._lives.setdefault(run, Life())

    async def receive(self) -> None:
        """Take reports until cancelled; what is no report of a run is passed over."""
        while True:
            data = await self._receiver.recv(DATAGRAM_BYTES)
            now = time.monotonic_ns()
            try:
                report = json.loads(data)
                life = self._lives[report["run"]]
                event, how = report["event"], report.get("how", "")
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                continue
            self.heard = True
            life.tell(str(event), printable(how), now)


@asynccontextmanager
async def listening(port: int = 0) -> AsyncIterator[LifeReports]:
    """Receive reports while the block runs; port 0 takes a free one.

    :raises OSError: the port is taken.
    """
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as receiver:
        await receiver.bind(("127.0.0.1", port))
        reports = LifeReports(receiver)
        failure = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reports.receive)
            try:
                yield reports
            except Exception as exc:
                failure = exc
            nursery.cancel_scope.cancel(reason="nothing more is measured")
        if failure is not None:
            raise failure  # bare: a caller need not know that a nursery was here

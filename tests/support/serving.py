"""The real server as a process for a whole module of tests, from plain functions.

`process.py` has the same for tests on Trio, where a server lives as long as one test.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

PATIENCE_S = 30
T = TypeVar("T")


class ServerProcess:
    """`trio-ai-stream serve` with the embedded simulator, on a free port."""

    def __init__(self, log: Path, **env: str) -> None:
        self._log = log
        settings = {"PORT": "0", "LOG_FORMAT": "json", "UPSTREAM": "simulator"}
        environ = {**os.environ, **settings, "RATE_LIMIT": "10000", **env}
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trio_ai_stream", "serve"],
                env=environ,
                cwd=log.parent,
                stderr=stderr,
            )
        self.url = until(self._address)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """All that has been logged so far."""
        return self._log.read_text()

    def _address(self) -> str:
        assert self._process.poll() is None, self.log
        match = re.search(r"Running on (https?://[^ ]+) ", self.log)
        return match[1] if match else ""

    def ended(self, name: str) -> dict[str, Any]:
        """Return the one record of a request or a generation, once it is there."""
        names = {"request_id", "generation_id"}

        def found() -> dict[str, Any]:
            lines = self.log.splitlines()
            records = [json.loads(line) for line in lines if "stream_ended" in line]
            return next((r for r in records if name in map(r.get, names)), {})

        return until(found)

    def running(self) -> list[str]:
        """Return the ids of the live streams; none if the server has gone."""
        try:
            found = httpx.get(f"{self.url}/streams", verify=False).json()
        except httpx.TransportError:
            return []
        return [one["id"] for one in found.get("streams", [])]

    def cancel_all(self) -> None:
        """Cancel whatever streams there are."""
        for one in self.running():
            httpx.delete(f"{self.url}/streams/{one}", verify=False)

    def terminate(self) -> float:
        """Ask for the drain and wait for the end; return the seconds it took."""
        began = time.monotonic()
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        return time.monotonic() - began

    def signal(self, signum: int) -> None:
        """Send the process a signal."""
        self._process.send_signal(signum)

    def stop(self) -> None:
        """End the process; it may still drain, but not for long."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def until(look: Callable[[], T]) -> T:
    """Return what `look` finds, as soon as it finds something."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < give_up_at, "what was waited for did not come"
        time.sleep(0.02)
    return found

"""One simulator and one server, as processes, for all clients of a run."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.serving import ServerProcess, until

KEY = "client-key-of-the-tests"


class SimulatorProcess:
    """The simulator as a process; its ledger says what upstream saw."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "trio_ai_stream.simulator", "--json"]
        command += ["--model", "simulator/fast"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url: str = json.loads(self._process.stdout.readline())["base_url"]

    def requests(self, request_id: str) -> list[dict[str, Any]]:
        """Return what the ledger holds of one request id."""
        url = f"{self.url}/stats?request_id={request_id}"
        with urllib.request.urlopen(url, timeout=10) as response:
            found: list[dict[str, Any]] = json.load(response)["requests"]
        return found

    def gone(self, request_id: str) -> dict[str, Any]:
        """Wait until upstream has seen its client go; return the record."""

        def look() -> dict[str, Any] | None:
            records = self.requests(request_id)
            return next((r for r in records if r["outcome"] == "client_gone"), None)

        found = until(look)
        assert found is not None
        return found

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="session")
def simulator() -> Iterator[SimulatorProcess]:
    """Upstream."""
    process = SimulatorProcess()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def server(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """`trio-ai-stream serve` before that upstream, with one key."""
    process = ServerProcess(
        tmp_path_factory.mktemp("server") / "log",
        UPSTREAM="openrouter",
        OPENROUTER_API_KEY="upstream-key",
        OPENROUTER_BASE_URL=simulator.url,
        OPENROUTER_MODEL="simulator/fast",
        API_KEYS=KEY,
        HEARTBEAT_SECS="0.5",
        UPSTREAM_ALIVE_SECS="1",  # then a client's own timeout may act
    )
    yield process
    process.stop()


@pytest.fixture(scope="session")
def base_url(server: ServerProcess) -> str:
    """What clients of OpenAI's API are given as their base URL."""
    return f"{server.url}/v1"

"""npm's SDKs as they are, under Node: OpenAI's, Anthropic's, OpenRouter's, Vercel's."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import KEY, SimulatorProcess
from tests.support.serving import ServerProcess

SCRIPTS = Path(__file__).with_name("node")
node, npm = shutil.which("node"), shutil.which("npm")
pytestmark = pytest.mark.skipif(
    node is None or npm is None, reason="Node or npm is not installed"
)


@pytest.fixture(scope="module")
def folder() -> Path:
    """A folder with the scripts and the pinned packages; installed once a machine."""
    package = (SCRIPTS / "package.json").read_bytes()
    name = f"trio-ai-stream-node-{hashlib.sha256(package).hexdigest()[:16]}"
    found = Path(tempfile.gettempdir()) / name
    found.mkdir(exist_ok=True)
    for script in SCRIPTS.iterdir():
        shutil.copy(script, found)
    if not (found / "node_modules" / ".package-lock.json").exists():
        assert npm is not None
        command = [npm, "install", "--no-package-lock", "--ignore-scripts"]
        command += ["--no-audit", "--no-fund", "--silent"]
        subprocess.run(command, cwd=found, check=True, timeout=120)
    return found


def run(folder: Path, script: str, *words: str) -> Any:
    """Run a script; return what it printed."""
    assert node is not None
    done = subprocess.run(
        [node, script, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_openai_package(
    folder: Path, base_url: str, simulator: SimulatorProcess
) -> None:
    """It streams, gets documents, leaves in mid-stream and raises its own errors."""
    request_id = uuid.uuid4().hex
    result = run(folder, "sdk.mjs", base_url, KEY, request_id)
    assert result["same"]
    assert result["length"] > 100
    assert result["seen"] == 5
    assert result["errors"] == {
        "not-found": ["NotFoundError", 404, 404],
        "at-capacity": ["RateLimitError", 429, 429],
        "unauthorized": ["InternalServerError", 502, 502],
        "error": ["APIError", None, 502],
    }
    assert simulator.gone(request_id)["gone_phase"] == "streaming"


def test_openrouters_package(
    folder: Path, base_url: str, simulator: SimulatorProcess
) -> None:
    """It validates all that it reads: documents, chunks, errors, the list of models."""
    request_id = uuid.uuid4().hex
    result = run(folder, "openrouter.mjs", base_url, KEY, request_id)
    assert result["same"]
    assert result["length"] > 100
    assert result["tool"] == "weather"
    assert result["seen"] == 5
    assert result["errors"] == {
        "not-found": ["NotFoundResponseError", 404, 404],
        "at-capacity": ["TooManyRequestsResponseError", 429, 429],
        "unauthorized": ["BadGatewayResponseError", 502, 502],
    }
    assert result["within"] == [502, True, "error"]
    assert result["priced"]
    assert simulator.gone(request_id)["gone_phase"] == "streaming"


def test_anthropics_package(
    folder: Path, server: ServerProcess, simulator: SimulatorProcess
) -> None:
    """It streams blocks of each kind, leaves in mid-stream and raises its errors."""
    request_id = uuid.uuid4().hex
    result = run(folder, "messages.mjs", server.url, KEY, request_id)
    assert result["same"]
    assert result["kinds"] == ["thinking", "text", "tool_use", "tool_use"]
    assert result["life"] == "end_turn"
    assert result["seen"] == 5
    assert result["errors"]["not-found"] == ["NotFoundError", 404]
    assert result["errors"]["at-capacity"] == ["RateLimitError", 429]
    assert result["errors"]["unauthorized"] == ["InternalServerError", 502]
    assert {"error", "drop"} <= set(result["errors"])
    assert simulator.gone(request_id)["gone_phase"] == "streaming"
    assert len(simulator.requests(f"{request_id}-again")) == 1


def test_vercels_package(
    folder: Path, base_url: str, simulator: SimulatorProcess
) -> None:
    """`@ai-sdk/openai` speaks Responses: a tool's loop, errors, leaving."""
    request_id = uuid.uuid4().hex
    result = run(folder, "responses.mjs", base_url, KEY, request_id)
    assert result["asked"] == ["sample"]
    assert result["long"]
    assert result["plain"]
    assert result["life"] == "stop"
    assert result["seen"] == 5
    assert result["errors"]["not-found"] == 404
    assert result["errors"]["truncated"] == 500  # its word for a server's error
    assert "stop" not in result["errors"].values()
    assert len(result["errors"]) == 4
    assert simulator.gone(request_id)["gone_phase"] == "streaming"
    assert len(simulator.requests(f"{request_id}-again")) == 1


GONE = {
    "before-the-head": "awaiting_headers",
    "before-any-event": "awaiting_first_token",
    "before-the-first-token": "awaiting_first_token",
    "thinking": "streaming",
    "answering": "streaming",
}


def test_leaving_in_each_phase(
    folder: Path, server: ServerProcess, simulator: SimulatorProcess
) -> None:
    """Three SDKs leave, and upstream sees it as soon as the server has."""
    words = server.url, KEY, simulator.url, uuid.uuid4().hex
    left = run(folder, "leaving.mjs", *words)
    assert len(left) == 3 * len(GONE)
    times_ms = []
    for request_id, left_ns in left.items():
        gone = simulator.gone(request_id)
        phase = next(name for name in GONE if request_id.endswith(name))
        assert (gone["gone_phase"], gone["attempt"]) == (GONE[phase], 1), request_id
        assert gone["client_gone_ns"] > left_ns
        times_ms.append(server.ended(request_id)["cancel_latency_ms"])
    assert statistics.median(times_ms) < 100


def test_eventsource_parser(folder: Path, server: ServerProcess) -> None:
    """Every event of `/chat` parses; the heartbeat is a comment, and nothing is odd."""
    result = run(folder, "events.mjs", server.url, KEY)
    assert result["status"] == 200
    assert result["types"] == ["connected", "content", "content", "content", "done"]
    assert "heartbeat" in result["comments"]
    assert result["errors"] == []


def test_a_session_that_is_closed_lets_its_streams_finish(
    folder: Path, server: ServerProcess
) -> None:
    """Node's `session.close()` sends GOAWAY with NO_ERROR (RFC 9113 6.8)."""
    result = run(folder, "goaway.mjs", server.url, KEY)
    assert result["errors"] == []
    assert [types[-1] for types in result["types"]] == ["done", "done"]
    assert [types.count("content") for types in result["types"]] == [5, 5]

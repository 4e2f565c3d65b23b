"""curl, over HTTP/1.1 and over HTTP/2 without TLS."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from typing import Any

import pytest

from tests.clients.conftest import KEY, SimulatorProcess
from tests.support.serving import ServerProcess

curl = shutil.which("curl")
pytestmark = pytest.mark.skipif(curl is None, reason="curl is not installed")
PROTOCOLS = ["--http1.1", "--http2-prior-knowledge"]


def run(url: str, body: Any, *options: str) -> subprocess.CompletedProcess[str]:
    """Post JSON, as a person would."""
    assert curl is not None
    command = [curl, "--silent", "--no-buffer", "--max-time", "20", *options, url]
    command += ["-H", f"Authorization: Bearer {KEY}"]
    command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def completion(model: str = "simulator/fast", **fields: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    messages = [{"role": "user", "content": "hello"}]
    return {"model": model, "messages": messages, **fields}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_completion_streams(protocol: str, server: ServerProcess) -> None:
    """curl prints upstream's chunks and `[DONE]`."""
    done = run(f"{server.url}/v1/chat/completions", completion(stream=True), protocol)
    assert done.returncode == 0
    *chunks, last = done.stdout.split("\n\n")[:-1]
    assert last == "data: [DONE]"
    assert all(json.loads(chunk.removeprefix("data: "))["id"] for chunk in chunks)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_chat_streams(protocol: str, server: ServerProcess) -> None:
    """The original Go server's endpoint, by its own example."""
    body = {"prompt": "hello", "model": "simulator/fast"}
    done = run(f"{server.url}/chat", body, protocol)
    events = [json.loads(line[6:]) for line in done.stdout.split("\n\n")[:-1]]
    types = [event["type"] for event in events]
    assert types[0] == "connected"
    assert types[-1] == "done"
    assert set(types[1:-1]) == {"content"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_curl_that_ends_is_noticed_upstream(
    protocol: str, stream: bool, server: ServerProcess, simulator: SimulatorProcess
) -> None:
    """Ctrl-C, here a time limit of curl's own, ends upstream's work."""
    request_id = uuid.uuid4().hex
    model = "simulator/endless" if stream else "simulator/no-answer"
    done = run(
        f"{server.url}/v1/chat/completions",
        completion(model, stream=stream),
        *(protocol, "--max-time", "0.5", "-H", f"X-Request-ID: {request_id}"),
    )
    assert done.returncode == 28  # curl's own time limit
    assert bool(done.stdout) == stream
    assert simulator.gone(request_id)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_refusal_has_its_status(protocol: str, server: ServerProcess) -> None:
    """`--fail` sees upstream's refusal: the status is true, not 200."""
    url = f"{server.url}/v1/chat/completions"
    body = completion("simulator/not-found", stream=True)
    assert run(url, body, protocol, "--fail").returncode == 22
    shown = run(url, body, protocol, "-w", "%{http_code}")
    assert shown.stdout.endswith("404")

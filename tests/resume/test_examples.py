"""The examples of docs/resume.md work as they stand."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import httpx
import pytest

from scripts.docs import ROOT
from tests.support.serving import ServerProcess

DOCUMENT = (ROOT / "docs" / "resume.md").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose answers take a moment."""
    log = tmp_path_factory.mktemp("server") / "log"
    model = "simulator/default?chunks=8&delay_ms=20"
    process = ServerProcess(log, OPENROUTER_MODEL=model)
    yield process
    process.stop()


def example(language: str) -> str:
    """The document's example in a language."""
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.skipif(which("curl") is None, reason="needs curl")
def test_curl_goes_on(server: ServerProcess, tmp_path: Path) -> None:
    """A transfer that is cut in the middle is completed by the second request."""
    script = example("bash").replace("localhost:8080", server.url)
    cut = script.replace("curl -sN -D", "curl -sN --max-time 0.12 -D", 1)
    subprocess.run(["bash", "-c", cut], cwd=tmp_path, timeout=20, check=False)
    events = (tmp_path / "events.txt").read_text()
    ids = [int(number) for number in re.findall(r"^id: (\d+)$", events, re.MULTILINE)]
    assert ids == list(range(1, 11))
    assert events.count('"type":"done"') == 1


class _CutOnce(httpx.HTTPTransport):
    """Loses its first response after some bytes, and refuses the next requests."""

    def __init__(self, *refusals: int) -> None:
        super().__init__()
        self.cut = False
        self._refusals = list(refusals)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.cut and self._refusals:
            return httpx.Response(self._refusals.pop())
        response = super().handle_request(request)
        if not self.cut:
            self.cut = True
            response.stream = _Torn(response.stream)
        return response


class _Torn(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield next(iter(self._stream))
        raise httpx.ReadError("lost")

    def close(self) -> None:
        self._stream.close()


def test_python_goes_on(server: ServerProcess) -> None:
    """The generator yields a whole answer although its first response is lost.

    It waits where it is told to, and gives up at what is final.
    """
    names: dict[str, Any] = {}
    exec(example("python").replace("http://localhost:8080", server.url), names)
    answer: Callable[..., Iterator[dict[str, Any]]] = names["answer"]
    transport = _CutOnce(503, 502)
    with httpx.Client(transport=transport) as client:
        types = [event["type"] for event in answer(client, "hello")]
    assert transport.cut
    assert types == ["connected", *["content"] * 8, "done"]
    with (
        httpx.Client(transport=_CutOnce(410)) as client,
        pytest.raises(httpx.HTTPStatusError, match="410"),
    ):
        list(answer(client, "hello"))

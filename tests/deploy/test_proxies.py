"""The proxy configurations of docs/deploy, as real proxies before a real server."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import ServerProcess, until

DEPLOY = Path(__file__).parent.parent.parent / "docs" / "deploy"
# Not the proxies' own address: so it shows whose word about the client is believed.
CLIENT = "127.0.0.2"
NGINX = """
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {}
}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that trusts its proxies on loopback."""
    log = tmp_path_factory.mktemp("server") / "log"
    process = ServerProcess(log, TRUSTED_PROXIES="127.0.0.1,::1", HEARTBEAT_SECS="1")
    yield process
    process.stop()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command(kind: str, folder: Path, server: ServerProcess, port: int) -> list[str]:
    """Return the command of a proxy with our configuration, but for its addresses."""
    program = shutil.which(kind)
    if program is None:
        pytest.skip(f"there is no {kind}: apt-get install {kind}")
    backend = server.url.removeprefix("http://")
    if kind == "nginx":
        text = (DEPLOY / "nginx.conf").read_text().replace("127.0.0.1:8080", backend)
        text = text.replace("listen 80;", f"listen 127.0.0.1:{port};")
        (folder / "conf").write_text(NGINX.format(text))
        return [program, "-e", "stderr", "-p", str(folder), "-c", "conf"]
    text = (DEPLOY / "Caddyfile").read_text().replace("127.0.0.1:8080", backend)
    text = text.replace("chat.example.com", f"http://127.0.0.1:{port}")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    config = str(folder / "Caddyfile")
    return [program, "run", "--config", config, "--adapter", "caddyfile"]


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    server: ServerProcess,
) -> Iterator[int]:
    """A proxy before the server; its port."""
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    words = command(request.param, folder, server, port)
    environ = {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environ)

    def listens() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(listens)
    yield port
    process.terminate()
    process.wait(10)


class Chat:
    """One stream through a proxy, on a socket that the test holds."""

    def __init__(self, port: int, model: str, **headers: str) -> None:
        self.connection = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=20, source_address=(CLIENT, 0)
        )
        body = json.dumps({"prompt": "x", "model": model})
        head = {"Content-Type": "application/json", **headers}
        self.connection.request("POST", "/chat", body, head)
        self.response = self.connection.getresponse()
        self.request_id = self.response.headers["X-Request-ID"]

    def line(self) -> bytes:
        """Return the next line that is not empty, as soon as it is here."""
        while not (line := self.response.readline().strip()):
            pass
        return line

    def event(self) -> dict[str, Any]:
        """Return the next event."""
        line = self.line()
        while not line.startswith(b"data: "):
            line = self.line()
        event: dict[str, Any] = json.loads(line[6:])
        return event

    def leave(self) -> None:
        """Close the connection."""
        self.response.close()
        self.connection.close()


def test_events_are_not_held_back(proxy: int, server: ServerProcess) -> None:
    """`connected` and then heartbeats arrive though nothing else ever will."""
    chat = Chat(proxy, "simulator/no-token")
    assert chat.event()["type"] == "connected"
    assert chat.line() == b": heartbeat"
    chat.leave()
    assert server.ended(chat.request_id)["outcome"] == "client_disconnected"


def test_a_whole_answer_comes_through(proxy: int, server: ServerProcess) -> None:
    """Every event, in order, to the last."""
    chat = Chat(proxy, "simulator/fast")
    types = [chat.event()["type"]]
    while types[-1] not in {"done", "error"}:
        types.append(chat.event()["type"])
    assert types[0] == "connected"
    assert types[-1] == "done"
    assert types.count("content") == server.ended(chat.request_id)["events"]
    assert chat.response.read().strip() == b""
    chat.leave()


@pytest.mark.parametrize("model", ["simulator/endless", "simulator/flood"])
def test_a_client_that_leaves_ends_the_stream(
    proxy: int, server: ServerProcess, model: str
) -> None:
    """The proxy passes the abort on, and upstream is closed at once."""
    chat = Chat(proxy, model)
    while chat.event()["type"] != "content":
        pass
    chat.leave()
    record = server.ended(chat.request_id)
    assert record["outcome"] == "client_disconnected"
    assert record["cancel_latency_ms"] < 1000


def test_what_a_client_says_of_its_address_is_not_believed(
    proxy: int, server: ServerProcess
) -> None:
    """The proxy's word counts, the client's own X-Forwarded-For does not."""
    chat = Chat(proxy, "simulator/endless", **{"X-Forwarded-For": "203.0.113.9"})
    chat.event()
    url = f"http://127.0.0.1:{proxy}/streams"
    curl = ["curl", "-sS", "--interface", CLIENT, url]
    listing = subprocess.run(curl, capture_output=True, check=True, timeout=20)
    streams = json.loads(listing.stdout)["streams"]
    clients = {s["client"] for s in streams if s["id"] == chat.request_id}
    assert clients == {f"ip:{CLIENT}"}
    chat.leave()
    assert server.ended(chat.request_id)

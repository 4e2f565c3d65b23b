"""Real proxies before a real server: streaming, aborts, drain, HTTP/2."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Self

import pytest

from tests.deploy.proxies import KINDS, Proxy, running
from tests.support.serving import ServerProcess, until

# Not the proxies' own address: so it shows whose word about the client is believed.
CLIENT = "127.0.0.2"
TRUST = {"TRUSTED_PROXIES": "127.0.0.1,::1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that trusts its proxies on loopback."""
    log = tmp_path_factory.mktemp("server") / "log"
    process = ServerProcess(log, HEARTBEAT_SECS="1", **TRUST)
    yield process
    process.stop()


@pytest.fixture(scope="module", params=KINDS)
def proxy(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    server: ServerProcess,
) -> Iterator[Proxy]:
    """A proxy before the server."""
    folder = tmp_path_factory.mktemp(request.param)
    with running(request.param, folder, server.url.removeprefix("http://")) as started:
        yield started


class Chat:
    """One stream through a proxy, on a socket that the test holds."""

    def __init__(self, proxy: Proxy, model: str, **headers: str) -> None:
        self.connection = http.client.HTTPConnection(
            "127.0.0.1", proxy.port, timeout=20, source_address=(CLIENT, 0)
        )
        body = json.dumps({"prompt": "x", "model": model})
        head = {"Content-Type": "application/json", **headers}
        self.connection.request("POST", "/chat", body, head)
        self.response = self.connection.getresponse()
        self.request_id = self.response.headers["X-Request-ID"]

    def line(self) -> bytes:
        """Return the next line that is not empty, as soon as it is here."""
        while (line := self.response.readline()) == b"\n":
            pass
        assert line, "the response ended"
        return line.strip()

    def event(self) -> dict[str, Any]:
        """Return the next event."""
        line = self.line()
        while not line.startswith(b"data: "):
            line = self.line()
        event: dict[str, Any] = json.loads(line[6:])
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave: close the connection."""
        self.response.close()
        self.connection.close()


def test_events_are_not_held_back(proxy: Proxy, server: ServerProcess) -> None:
    """`connected` and then heartbeats arrive though nothing else ever will."""
    with Chat(proxy, "simulator/no-token") as chat:
        assert chat.event()["type"] == "connected"
        assert chat.line() == b": heartbeat"
    assert server.ended(chat.request_id)["outcome"] == "client_disconnected"


def test_a_whole_answer_comes_through(proxy: Proxy, server: ServerProcess) -> None:
    """Every event, in order, to the last."""
    with Chat(proxy, "simulator/fast") as chat:
        types = [chat.event()["type"]]
        while types[-1] not in {"done", "error"}:
            types.append(chat.event()["type"])
        assert types[0] == "connected"
        assert types[-1] == "done"
        assert types.count("content") == server.ended(chat.request_id)["events"]
        assert chat.response.read().strip() == b""


@pytest.mark.parametrize("model", ["simulator/endless", "simulator/flood"])
def test_a_client_that_leaves_ends_the_stream(
    proxy: Proxy, server: ServerProcess, model: str
) -> None:
    """The proxy passes the abort on, and upstream is closed at once."""
    with Chat(proxy, model) as chat:
        while chat.event()["type"] != "content":
            pass
    record = server.ended(chat.request_id)
    assert record["outcome"] == "client_disconnected"
    assert record["fault"] == "caller"
    assert record["cancel_latency_ms"] < 1000


def live_documents(server: ServerProcess) -> bool:
    """Whether a request of `/v1` is live."""
    with urllib.request.urlopen(server.url + "/metrics", timeout=20) as answer:
        metrics = answer.read().decode()
    return 'streams_live{endpoint="/v1/chat/completions"} 1.0' in metrics


def test_a_client_that_leaves_before_the_answer_ends_the_request(
    proxy: Proxy, server: ServerProcess
) -> None:
    """Also a proxy that has nothing to write notices, within seconds."""
    request_id = uuid.uuid4().hex
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    message = {"role": "user", "content": "x"}
    body = {"model": "simulator/no-answer", "messages": [message], "stream": False}
    head = {"Content-Type": "application/json", "X-Request-ID": request_id}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
    until(lambda: live_documents(server))
    left_at = time.monotonic()
    connection.close()
    assert server.ended(request_id)["outcome"] == "client_disconnected"
    assert time.monotonic() - left_at < 15


def test_the_clients_request_id_is_kept(proxy: Proxy, server: ServerProcess) -> None:
    """The id that a client chose names its stream, in the answer and in the log."""
    request_id = f"mine-{uuid.uuid4().hex}"
    with Chat(proxy, "simulator/endless", **{"X-Request-ID": request_id}) as chat:
        assert chat.request_id == request_id
    assert server.ended(request_id)


def test_what_a_client_says_of_its_address_is_not_believed(
    proxy: Proxy, server: ServerProcess
) -> None:
    """The proxy's word counts, the client's own X-Forwarded-For does not."""
    claimed = {"X-Forwarded-For": "203.0.113.9"}
    with Chat(proxy, "simulator/endless", **claimed) as chat:
        chat.event()
    assert server.ended(chat.request_id)["client"] == f"ip:{CLIENT}"


def test_http2_streams_and_aborts(proxy: Proxy, server: ServerProcess) -> None:
    """Over HTTP/2 events arrive one by one, and leaving ends the stream as well."""
    *options, url = proxy.http2
    request_id = uuid.uuid4().hex
    words = ["curl", "-sSNi", "--max-time", "20", *options, url + "/chat"]
    words += [
        "-H",
        "content-type: application/json",
        "-H",
        f"x-request-id: {request_id}",
    ]
    words += ["-d", json.dumps({"prompt": "x", "model": "simulator/endless"})]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        assert curl.stdout.readline().startswith(b"HTTP/2 200")
        while b'"type":"content"' not in (line := curl.stdout.readline()):
            assert line, "curl ended"
        curl.kill()
    assert server.ended(request_id)["outcome"] == "client_disconnected"


def answer(connection: socket.socket) -> None:
    """Answer each request with events as soon as its last byte is here."""
    event = b'data: {"type":"content"}\n\n'
    chunk = b"%x\r\n%b\r\n" % (len(event), event)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    head += b"transfer-encoding: chunked\r\nx-request-id: x\r\n\r\n"
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(OSError), connection, connection.makefile("rwb") as stream:
        while line := stream.readline():
            length = 0
            while line.strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
                line = stream.readline()
            stream.read(length)
            for piece in (head, *[chunk] * 20, b"0\r\n\r\n"):
                stream.write(piece)
                stream.flush()


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_comes_at_once_is_not_cut(kind: str, tmp_path: Path) -> None:
    """Not one of 800; Caddy without `request_buffers` cuts one in a hundred."""

    def serve() -> None:
        with suppress(OSError):  # the test has closed the listener
            while True:
                connection, _ = listener.accept()
                Thread(target=answer, args=(connection,), daemon=True).start()

    def ask(_: int) -> int:
        with Chat(proxy, "x") as chat:
            return chat.response.read().count(b"data: ")

    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
        running(kind, tmp_path, f"127.0.0.1:{listener.getsockname()[1]}") as proxy,
        ThreadPoolExecutor(4) as pool,
    ):
        Thread(target=serve, daemon=True).start()
        assert list(pool.map(ask, range(800))) == [20] * 800


@pytest.mark.parametrize("kind", KINDS)
def test_a_drain_reaches_the_client_through_the_proxy(
    kind: str, tmp_path: Path
) -> None:
    """A live stream hears the last event, and who comes later is told at once."""
    server = ServerProcess(tmp_path / "log", DRAIN_TIMEOUT_SECS="2", **TRUST)
    backend = server.url.removeprefix("http://")
    try:
        with running(kind, tmp_path, backend) as proxy:
            with Chat(proxy, "simulator/endless") as chat:
                assert chat.event()["type"] == "connected"
                assert server.terminate() < 10
                event = chat.event()
                while event["type"] == "content":
                    event = chat.event()
                assert event["error_type"] == "shutting_down"
            with Chat(proxy, "simulator/fast") as late:
                assert late.response.status in {502, 503}
    finally:
        server.stop()

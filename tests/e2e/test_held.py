"""What a live stream holds of what its client has said: nothing."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from pathlib import Path

from cancel_lab.procfs import resident_bytes
from tests.support.serving import ServerProcess

STREAMS = 150
MODEL = "simulator/fast?chunks=2&delay_ms=100000"


def test_long_headers_cost_a_live_stream_nothing(tmp_path: Path) -> None:
    """A hundred and fifty streams with 12 kB of headers take less than 3 kB each."""
    server = ServerProcess(tmp_path / "log", MAX_CONCURRENT_STREAMS="1000")
    try:
        with ExitStack() as clients:
            for _ in range(STREAMS):  # what is made once, and what is freed and kept
                _begin(server, clients, 100)
            before = resident_bytes(server.pid)
            assert before is not None
            for _ in range(STREAMS):
                _begin(server, clients, 100)
            short = (resident_bytes(server.pid) or 0) - before
            for _ in range(STREAMS):
                _begin(server, clients, 12_000)
            long = (resident_bytes(server.pid) or 0) - before - short
    finally:
        server.stop()
    assert long - short < STREAMS * 3_000


def _begin(server: ServerProcess, clients: ExitStack, size: int) -> None:
    """Start a stream with a header of so many bytes, and read its first content."""
    host, port = server.url.removeprefix("http://").split(":")
    client = clients.enter_context(socket.create_connection((host, int(port)), 20))
    body = json.dumps({"prompt": "x", "model": MODEL}).encode()
    head = f"POST /chat HTTP/1.1\r\nhost: {host}\r\nx-long: {'x' * size}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    seen = b""
    while b'"type":"content"' not in seen:
        data = client.recv(65_536)
        assert data, seen
        seen += data

"""A record says `told` only of clients that the terminal event has gone out to."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from tests.support.process import ServerProcess, server
from tests.support.server import frames as f

WAYS = ("http/1.1", "https/1.1", "h2c", "h2")
STALL = {"WRITE_TIMEOUT_SECS": "1"}
DEADLINE = {"WRITE_TIMEOUT_SECS": "2", "STREAM_DEADLINE_SECS": "1"}


class Reader:
    """One client of `/chat`, over any of the four ways; it reads when it is told to."""

    def __init__(self, way: str, stream: trio.abc.Stream) -> None:
        self.way = way
        self.stream = stream
        self.received = b""

    @classmethod
    async def connect(cls, way: str, port: int, context: ssl.SSLContext) -> Reader:
        """Connect with a small receive buffer."""
        sock = trio.socket.socket()
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
        await sock.connect(("127.0.0.1", port))
        stream: trio.abc.Stream = trio.SocketStream(sock)
        if way in {"https/1.1", "h2"}:
            context.set_alpn_protocols(["h2" if way == "h2" else "http/1.1"])
            stream = trio.SSLStream(stream, context, server_hostname="localhost")
        return cls(way, stream)

    async def ask(self, model: str, request_id: str) -> None:
        """Send the request, and read the first bytes of its answer."""
        body = json.dumps({"prompt": "hi", "model": model}).encode()
        fields = {"content-type": "application/json", "x-request-id": request_id}
        if self.way.startswith("h2"):
            extra = tuple((k.encode(), v.encode()) for k, v in fields.items())
            head = f.request(1, b"/chat", method=b"POST", extra=extra, end=False)
            await self.stream.send_all(f.hello() + head + f.data(1, body, end=True))
        else:
            fields |= {"host": "localhost", "content-length": str(len(body))}
            lines = [f"{name}: {value}" for name, value in fields.items()]
            text = "\r\n".join(["POST /chat HTTP/1.1", *lines, "", ""])
            await self.stream.send_all(text.encode() + body)
        await self._read_until(b"connected")

    async def read_to_done(self) -> None:
        """Read the rest of a short answer."""
        await self._read_until(b'"type":"done"')

    async def _read_until(self, word: bytes) -> None:
        while word not in self.received:
            self.received += await self.stream.receive_some(4096)


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [(STALL, "client_stalled"), (DEADLINE, "deadline_exceeded")],
)
async def test_who_reads_is_told_and_who_has_stopped_is_not(
    settings: dict[str, str], outcome: str, tmp_path: Path
) -> None:
    """Whose last bytes are still here, or went with the connection, was not told."""
    reading, stopped = await _run(settings, tmp_path)
    assert _told(reading) == dict.fromkeys(WAYS, ("completed", True))
    assert _told(stopped) == dict.fromkeys(WAYS, (outcome, False))


Records = dict[str, dict[str, Any]]


def _told(records: Records) -> dict[str, tuple[str, bool]]:
    return {way: (record["outcome"], record["told"]) for way, record in records.items()}


async def _run(settings: dict[str, str], folder: Path) -> tuple[Records, Records]:
    """Return the records of clients that read, and of others that do not, by way."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    tls = {
        "TLS_CERT_FILE": str(folder / "cert.pem"),
        "TLS_KEY_FILE": str(folder / "key.pem"),
    }
    reading: Records = {}
    stopped: Records = {}

    async def one(way: str, running: ServerProcess, records: Records) -> None:
        request_id = f"{way}-{records is reading}".replace("/", "-")
        reader = await Reader.connect(way, running.port, context)
        if records is reading:
            await reader.ask("simulator/echo", request_id)
            await reader.read_to_done()
        else:
            await reader.ask("simulator/flood", request_id)
        records[way] = await _record(running, request_id)
        await trio.aclose_forcefully(reader.stream)

    with trio.fail_after(60):
        settings = {"UPSTREAM": "simulator", "ALLOW_ANONYMOUS": "1", **settings}
        async with (
            server(**settings) as plain,
            server(**settings, **tls) as encrypted,
            trio.open_nursery() as nursery,
        ):
            for way in WAYS:
                running = encrypted if way in {"https/1.1", "h2"} else plain
                nursery.start_soon(one, way, running, reading)
                nursery.start_soon(one, way, running, stopped)
    return reading, stopped


async def _record(running: ServerProcess, request_id: str) -> dict[str, Any]:
    while True:
        ended = running.ended()
        found = [record for record in ended if record["request_id"] == request_id]
        if found:
            return found[0]
        await running.logged("stream_ended", len(ended) + 1)

"""The simulator as the upstream of a server under test, and what its ledger tells."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import trio
import trustme

from cancel_lab.clients.chat_stream import ChatRequest
from cancel_lab.clients.connection import ConnectionEndedError, connect
from cancel_lab.clients.http1 import HTTP1Stream
from cancel_lab.process import Server, free_port, serving
from cancel_lab.scenes import MARK

FIRST_LOOK_S = 0.005  # after a cause; by then a prompt server's upstream has noticed
LONGEST_PAUSE_S = 0.1  # between two looks at the ledger
LEDGER_BYTES = 64 * 1024 * 1024  # an entry is up to a kilobyte
BEYOND = 10**12  # an entry number that no ledger reaches


class Entry(msgspec.Struct, frozen=True):
    """One request in the simulator's ledger; times are CLOCK_MONOTONIC."""

    number: int
    phase: str
    outcome: str
    events_sent: int
    tokens_sent: int
    bytes_sent: int
    recent_sends: list[tuple[int, int]]
    model: str | None = None
    gone_how: str | None = None
    client_gone_ns: int | None = None
    finish_sent_ns: int | None = None
    ended_ns: int | None = None
    received_ns: int | None = None

    def wasted(self, cause_ns: int, read: int) -> int:
        """Return how many events upstream finished sending after the cause.

        The ledger keeps the last sends only; if all of those came after the cause, what
        the client had ``read`` by then stands for what had been sent.
        """
        before = [sent for at, sent in self.recent_sends if at <= cause_ns]
        if before:
            return self.events_sent - max(before)
        if len(self.recent_sends) < self.events_sent:
            return self.events_sent - read
        return self.events_sent


class _Stats(msgspec.Struct):
    total: int
    live: int
    requests: list[Entry]


class Upstream:
    """A running simulator."""

    def __init__(self, server: Server, tls_port: int, authority: Path) -> None:
        """Made by ``simulating``."""
        self.server = server
        self._tls_port = tls_port
        self.authority = authority  # PEM of who signed its certificate
        self._tags = 1_000_000

    @property
    def base_url(self) -> str:
        """What a server takes as the base URL of OpenRouter's API."""
        return f"http://127.0.0.1:{self.server.port}/api/v1"

    @property
    def tls_base_url(self) -> str:
        """The same, over TLS."""
        return f"https://127.0.0.1:{self._tls_port}/api/v1"

    def tag(self) -> int:
        """Return a number no other request of this simulator bears."""
        self._tags += 1
        return self._tags

    async def stats(self, since: int) -> _Stats:
        """Return the ledger from one entry number on."""
        body = await get(self.server.port, f"/api/v1/stats?since={since}")
        return msgspec.json.decode(body, type=_Stats)

    async def newest(self) -> int:
        """Return the number of the newest entry, without asking for any."""
        return (await self.stats(since=BEYOND)).total

    async def entry(
        self, tag: int, until: Callable[[Entry], bool], *, since: int
    ) -> Entry:
        """Return a request's newest entry once it satisfies a condition.

        ``since`` keeps the answer small: a whole ledger takes upstream long to encode.
        Waits for ever: the caller bounds it. Looks late, and less and less often: each
        look is a request that upstream answers, and one at the moment of a cause would
        be a part of what is measured.
        """
        pause = FIRST_LOOK_S
        while True:
            await trio.sleep(pause)
            entry = await self.look(tag, since=since)
            if entry is not None and until(entry):
                return entry
            pause = min(pause * 1.5, LONGEST_PAUSE_S)

    async def look(self, tag: int, *, since: int) -> Entry | None:
        """Return a request's newest entry as it is now, ``None`` if there is none."""
        requests = (await self.stats(since)).requests
        own = [entry for entry in requests if f"{MARK}{tag}" in (entry.model or "")]
        return own[-1] if own else None


async def get(port: int, path: str, *, method: str = "GET") -> bytes:
    """Return the body of a whole answer; OSError if it does not come whole."""
    body = bytearray()
    request = ChatRequest(path=path, body=b"", method=method)
    connection = await connect(port)
    stream = HTTP1Stream(connection, request, sink=body, sink_bytes=LEDGER_BYTES)
    try:
        await stream.start()
        await stream.read_to_end()
    except ConnectionEndedError as exc:
        raise OSError(f"{method} {path}: the connection was reset") from exc
    finally:
        stream.connection.close()
    if stream.seen.cut is not None:
        raise OSError(f"{method} {path}: {stream.seen.cut}")
    if stream.seen.status != 200:
        raise OSError(f"{method} {path}: expected status 200, got {stream.seen.status}")
    return bytes(body)


async def get_json(port: int, path: str) -> Any:
    """Return what a server's endpoint answers in JSON."""
    return json.loads(await get(port, path))


@asynccontextmanager
async def simulating() -> AsyncIterator[Upstream]:
    """Run a simulator of its own process while the block runs."""
    port, tls_port = free_port(), free_port()
    issuer = trustme.CA()
    with TemporaryDirectory(prefix="cancel-lab-") as folder:
        authority, pem = Path(folder) / "authority.pem", Path(folder) / "upstream.pem"
        issuer.cert_pem.write_to_path(authority)
        issued = issuer.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(pem)
        argv = [sys.executable, "-m", "trio_ai_stream.simulator", "--port", str(port)]
        argv += ["--certificate", str(pem), "--tls-port", str(tls_port)]
        async with serving(argv, {}, port=port) as server:
            yield Upstream(server, tls_port, authority)

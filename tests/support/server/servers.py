"""Servers for tests: a real process, or one in the test's own Trio run."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import hypercorn.trio.run
import trio
import trio.testing
import trustme
from hypercorn.config import Config, Sockets
from hypercorn.utils import wrap_app

from tests.support.server.application import Application
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.serving import Server

ROOT: Final = Path(__file__).parents[3]
MODULE: Final = "tests.support.server.process:app"
# Hypercorn's own, kept before any test installs the server in this process.
STOCK: Final = hypercorn.trio.run.worker_serve


@dataclass
class ServerProcess:
    """A running `hypercorn` command."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    workers: list[int] = field(default_factory=list)

    @property
    def living(self) -> list[int]:
        """The workers that have not ended."""
        return [pid for pid in self.workers if Path(f"/proc/{pid}").exists()]

    @property
    def alive(self) -> bool:
        """Whether the command still runs."""
        return self.process.poll() is None

    def signal_group(self, signum: signal.Signals) -> None:
        """Signal the command and all its workers, as a terminal does."""
        os.killpg(self.process.pid, signum)

    def kill(self) -> None:
        """End the command and its workers, whatever they do."""
        if self.alive or self.workers:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)


def start_process(
    folder: Path,
    *,
    limits: Mapping[str, Any] | None,
    workers: int = 0,
    arguments: tuple[str, ...] = (),
) -> ServerProcess:
    """Start `hypercorn` on a free port and return once all its workers listen.

    :param workers: 0 serves in the command's own process.
    :raises AssertionError: it did not start; the message has its log.
    """
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-w", str(workers)]
    command += ["-b", "127.0.0.1:0", *arguments, MODULE]
    return _start(folder, command, max(1, workers), limits)


def start_supervised(
    folder: Path, *, limits: Mapping[str, Any], workers: int, **settings: str
) -> ServerProcess:
    """Start our own launch with several workers."""
    command = [sys.executable, "-m", "tests.support.server.supervised"]
    return _start(
        folder,
        command,
        workers,
        limits,
        PORT="127.0.0.1:0",
        WORKERS=str(workers),
        DRAIN_TIMEOUT_SECS=str(limits["drain_s"]),
        **settings,
    )


def _start(
    folder: Path,
    command: list[str],
    listening: int,
    limits: Mapping[str, Any] | None,
    **settings: str,
) -> ServerProcess:
    log = folder / "server.log"
    environ = {**os.environ, **settings, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    environ["SERVER_LIMITS"] = "" if limits is None else json.dumps(dict(limits))
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = ServerProcess(process, 0, log)
    _await_listening(server, listening)
    return server


def _await_listening(server: ServerProcess, count: int) -> None:
    """Read the log as it grows; each worker says once where it listens."""
    pattern = re.compile(rb"\[(\d+)\] \[INFO\] Running on https?://127\.0\.0\.1:(\d+)")
    found: list[tuple[bytes, bytes]] = []
    with subprocess.Popen(
        ["timeout", "30", "tail", "-n", "+1", "-F", str(server.log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as tail:
        assert tail.stdout is not None
        for line in tail.stdout:
            found += pattern.findall(line)
            if len(found) == count or not server.alive:
                break
        tail.kill()
    assert len(found) == count, server.log.read_text()
    server.port = int(found[0][1])
    server.workers = [int(pid) for pid, _ in found]


@dataclass
class LocalServer:
    """A server in the test's own Trio run."""

    port: int
    application: Application
    hardened: Server
    stop: trio.Event

    async def draining(self) -> None:
        """Wait until the application has been told to drain."""
        while not self.application.draining:
            await trio.testing.wait_all_tasks_blocked()


async def serve_while(
    body: Callable[[LocalServer], Awaitable[None]],
    *,
    config: Config | None = None,
    sockets: Sockets | None = None,
    within_s: float = 30,
    **limits: Any,
) -> None:
    """Serve with the server on a free port while `body` runs; then drain.

    Unless the `limits` say otherwise, its end is short.

    :raises trio.TooSlowError: it has not ended in time.
    """
    application = Application()
    bounds = Limits(**{"linger_s": 0.2, "drain_s": 0.2, **limits})
    hardened = Server(bounds, application)
    stop = trio.Event()
    with trio.fail_after(within_s):
        async with trio.open_nursery() as nursery:
            serve = partial(
                hardened.serve,
                wrap_app(cast("Any", application), 0, "asgi"),
                config or local_config(),
                sockets=sockets,
                shutdown_trigger=stop.wait,
            )
            binds = await nursery.start(serve)
            port = int(binds[0].rpartition(":")[2])
            await body(LocalServer(port, application, hardened, stop))
            stop.set()


async def serve_stock_while(
    body: Callable[[LocalServer], Awaitable[None]], *, config: Config | None = None
) -> None:
    """The same on stock Hypercorn; what ends its worker is raised."""
    application = Application()
    config = config or local_config()
    stop = trio.Event()
    sockets = config.create_sockets()
    (sock,) = sockets.secure_sockets + sockets.insecure_sockets
    with sock:
        sock.listen()
        server = LocalServer(
            sock.getsockname()[1], application, Server(Limits(), application), stop
        )
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                app = wrap_app(cast("Any", application), 0, "asgi")
                serve = partial(STOCK, app, config, sockets=sockets)
                await nursery.start(partial(serve, shutdown_trigger=stop.wait))
                await body(server)
                nursery.cancel_scope.cancel(reason="the test is over")


def local_config() -> Config:
    """Return a configuration for a free loopback port, with a silent log."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    return config


def tls_config(folder: Path) -> tuple[Config, ssl.SSLContext]:
    """Return the same with a certificate for localhost, and who trusts that."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    config = local_config()
    config.certfile, config.keyfile = str(folder / "cert.pem"), str(folder / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return config, context

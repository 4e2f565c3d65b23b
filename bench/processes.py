"""The processes of a benchmark, each on its core, and what they use.

The gateway has core 0 for itself; upstream and load share core 1.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.load import Target, direct
from cancel_lab.placement import on_server_cores
from cancel_lab.process import free_port
from cancel_lab.procfs import family, resident_bytes

GATEWAY_CORE: Final = {0}
LOAD_CORE: Final = {1 % (os.cpu_count() or 1)}
SETTLED_S: Final = 20  # after its end a bill of `server` is looked up for so long

_NAIVE: Final = "cancel_lab.adapters.apps.naive_quart_trio:app"
# What must not limit a benchmark; and only warnings are logged, as the naive app logs
# nothing at all.
_SETTINGS: Final = {
    "UPSTREAM": "openrouter",
    "OPENROUTER_API_KEY": "bench",
    "RATE_LIMIT": "1000000",
    "MAX_CONCURRENT_STREAMS": "20000",
    "MAX_CONNECTIONS": "20000",
    "LOG_LEVEL": "WARNING",
    "HEARTBEAT_SECS": "600",
    "STREAM_IDLE_TIMEOUT_SECS": "600",
}


class Process:
    """A process, what it has used of a core, and what it holds of memory."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the process and its children, to the nanosecond."""
        total = 0
        for pid in family(self.process.pid):
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    @property
    def resident(self) -> int:
        """Bytes of resident memory, children included."""
        return resident_bytes(self.process.pid) or 0


@contextlib.contextmanager
def started(
    command: Sequence[str], cores: set[int], **environment: str
) -> Iterator[Process]:
    """Run a command on some cores, and end it with the block."""
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    ) as process:
        try:
            yield Process(process)
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def upstream(
    cores: set[int] = LOAD_CORE, *, certificate: Path | None = None
) -> Iterator[Target]:
    """Run an upstream, over TLS if it is given a certificate (and its key) as PEM."""
    command = [sys.executable, "-m", "bench.upstream"]
    command += [] if certificate is None else [str(certificate)]
    with started(command, cores) as running:
        assert running.process.stdout is not None
        yield direct(int(running.process.stdout.readline()))


@contextlib.contextmanager
def gateway(
    name: str,
    source: Target,
    *,
    workers: int = 1,
    cores: set[int] = GATEWAY_CORE,
    python: str = sys.executable,
    **settings: str,
) -> Iterator[tuple[Process, Target]]:
    """Run a gateway in front of an upstream: `ours`, `naive` or `aiohttp`."""
    port = free_port()
    base_url = f"http://127.0.0.1:{source.port}/api/v1"
    if name == "ours":
        command = [python, "-m", "trio_ai_stream", "serve"]
        environment = {
            **_SETTINGS,
            "OPENROUTER_BASE_URL": base_url,
            "PORT": str(port),
            "WORKERS": str(workers),
            **settings,
        }
        target = Target(name, port)
    elif name == "aiohttp":
        command = [python, "-m", "bench.aiohttp_relay", str(port)]
        environment = {"UPSTREAM_URL": base_url}
        target = Target(name, port)
    else:
        bind = f"127.0.0.1:{port}"
        command = [python, "-m", "hypercorn", "-k", "trio", "-b", bind, _NAIVE]
        command += ["-w", str(workers), "--log-level", "WARNING"]
        environment = {"UPSTREAM_URL": base_url}
        target = Target(name, port, mark=b'"type": "content"')
    with started(command, cores, **environment) as process:
        _await_listening(port, process.process)
        if workers > 1:
            _pin(process.process.pid, workers, sorted(cores))
        yield process, target


@contextlib.contextmanager
def server(
    log: Path, apart: bool = False, /, **settings: str
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run our server, in a process group of its own.

    `apart` is for whoever is `watching`: the server has the other cores.
    """
    port = free_port()
    command = [sys.executable, "-m", "trio_ai_stream", "serve"]
    environment = {
        "UPSTREAM": "openrouter",
        "OPENROUTER_API_KEY": "bench",
        "RATE_LIMIT": "100000",
        "LOG_FORMAT": "json",
        "PORT": str(port),
        "RECONCILE_SECS": str(SETTLED_S),
        **settings,
    }
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            on_server_cores(command) if apart else command,
            env={**os.environ, **environment},
            stderr=stderr,
            start_new_session=True,
        )
    try:
        _await_listening(port, process)
        yield port, process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def simulator() -> Iterator[str]:
    """Run the simulator; give its base URL."""
    port = free_port()
    command = [sys.executable, "-m", "trio_ai_stream", "simulate", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _await_listening(port, process)
        yield f"http://127.0.0.1:{port}/api/v1"
    finally:
        process.terminate()
        process.wait(10)


def _pin(supervisor: int, workers: int, cores: list[int]) -> None:
    """Give each worker a core: left alone, the kernel at times puts all on one."""
    found: list[int] = []
    for _ in range(300):
        found = [pid for pid in family(supervisor) if pid != supervisor]
        if len(found) >= workers:
            break
        time.sleep(0.1)
    for number, pid in enumerate(found):
        os.sched_setaffinity(pid, {cores[number % len(cores)]})


def _await_listening(port: int, process: subprocess.Popen[Any]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"the gateway ended with status {process.returncode}")
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.1)
    raise TimeoutError("expected the gateway to listen within 30 s")


def machine() -> dict[str, str | int]:
    """Return what a reader needs to know of this machine."""
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", text)
    return {
        "cpu": model[1] if model else "unknown",
        "cores": os.cpu_count() or 1,
        "python": sys.version.split()[0],
        "load average": f"{os.getloadavg()[0]:.1f}",
    }

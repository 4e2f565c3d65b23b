"""A server under test as a child process: started, watched, always ended."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

KILL_AFTER_S = 2.0  # a child that ignores SIGTERM for this long at the end is killed
FIRST_PORT = 10_000  # below it are the ports of well-known programs
# Many processes look for a port at the same time: each goes on from a place of its own.
_TURNS = itertools.count(os.getpid() * 1_009)
OUTPUT_LINES = 100_000  # kept of a child's output; more would be a runaway log


class ServerError(RuntimeError):
    """A server under test did not start, or ended by itself."""


def free_port() -> int:
    """Return a port that nobody has just now, and that the kernel gives to no client.

    A port that the kernel chose may be some client's before the server listens that is
    told of it; one that is chosen at random, some other server's that starts now.
    """
    while True:
        port = FIRST_PORT + next(_TURNS) % (_first_of_clients() - FIRST_PORT)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port


def _first_of_clients() -> int:
    """Return the first port that the kernel gives to clients."""
    try:
        said = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    except OSError:  # not Linux; RFC 6335 section 6
        return 49_152
    return max(int(said.split()[0]), FIRST_PORT + 1_000)


class Server:
    """A running child: its port, its process and its stamped output lines."""

    def __init__(self, process: trio.Process, port: int) -> None:
        """Made by ``serving``."""
        self.process = process
        self.port = port
        self.lines: list[tuple[int, bytes]] = []
        self.exited_ns: int | None = None
        self._arrived = trio.Event()
        self._said_all = trio.Event()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def terminate(self) -> int:
        """Send SIGTERM and return when."""
        now = time.monotonic_ns()  # before, for the reason in clients/connection.py
        self.process.send_signal(signal.SIGTERM)
        return now

    async def exited(self) -> int:
        """Wait until the process has ended and return when that was seen."""
        await self.process.wait()
        if self.exited_ns is None:
            self.exited_ns = time.monotonic_ns()
        return self.exited_ns

    async def line_after(self, count: int) -> None:
        """Wait until more than ``count`` lines of output have come."""
        while len(self.lines) <= count:
            await self._arrived.wait()

    def tail(self, count: int = 15) -> str:
        """Return the last lines of output, for an error message."""
        return "\n".join(
            line.decode(errors="replace") for _, line in self.lines[-count:]
        )

    async def collect(self, pipe: trio.abc.ReceiveStream) -> None:
        """Stamp each line of the child's output as it comes, to the end."""
        rest = b""
        async for data in pipe:
            now = time.monotonic_ns()
            *lines, rest = (rest + data).split(b"\n")
            if lines and len(self.lines) < OUTPUT_LINES:
                self.lines += [(now, line) for line in lines]
                self._arrived.set()
                self._arrived = trio.Event()
        self._said_all.set()

    async def last_words(self) -> str:
        """Return the last lines of a process that has ended, once all were read.

        Waits for `KILL_AFTER_S` at most: a child of its own may keep the pipe open.
        """
        with trio.move_on_after(KILL_AFTER_S):
            await self._said_all.wait()
        return self.tail()


async def _listening(server: Server) -> None:
    while True:
        if server.process.poll() is not None:
            raise ServerError(
                f"expected a server on port {server.port}, but the process ended with "
                f"status {server.process.returncode}; its last words:\n"
                f"{await server.last_words()}"
            )
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        except OSError:
            await trio.sleep(0.05)  # a child that is starting can only be asked again
            continue
        await trio.aclose_forcefully(stream)
        return


async def _ready(server: Server, within_s: float) -> None:
    try:
        with trio.fail_after(within_s):
            await _listening(server)
    except trio.TooSlowError as exc:
        raise ServerError(
            f"expected a server on port {server.port} within {within_s:g} s; its last "
            f"words:\n{server.tail()}"
        ) from exc


async def _end(server: Server) -> None:
    """End the child, and whatever it started, whatever they are doing."""
    with suppress(ProcessLookupError):
        server.process.terminate()
    with trio.move_on_after(KILL_AFTER_S):
        await server.exited()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, signal.SIGKILL)
    await server.exited()


@asynccontextmanager
async def serving(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    port: int,
    ready_within_s: float = 20.0,
) -> AsyncIterator[Server]:
    """Run a server from when it listens on ``port`` until the block ends.

    Errors: ServerError if it does not come to listen. Cancellation: the child and its
    children are ended within twice KILL_AFTER_S.
    """
    try:
        process = await trio.lowlevel.open_process(
            list(argv),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,  # so that a worker it leaves behind can be killed
        )
    except OSError as exc:
        raise ServerError(f"expected a command that can be started: {exc}") from exc
    failure = None
    async with trio.open_nursery() as nursery:
        server = Server(process, port)
        try:
            assert process.stdout is not None
            nursery.start_soon(server.collect, process.stdout)
            await _ready(server, ready_within_s)
            yield server
        except Exception as exc:
            failure = exc
        finally:
            with trio.move_on_after(2 * KILL_AFTER_S, shield=True):
                await _end(server)
            nursery.cancel_scope.cancel(reason="the server under test has ended")
    if failure is not None:
        raise failure  # bare: a caller need not know that a nursery was here

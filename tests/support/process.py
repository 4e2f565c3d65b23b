"""The real server as a real process, by either of its launches."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).parent.parent.parent
SERVE = [sys.executable, "-m", "trio_ai_stream", "serve"]
HYPERCORN = [sys.executable, "-m", "hypercorn", "-c", "hypercorn.toml"]
_RUNNING = re.compile(r"Running on (https?)://([^ ]+?):(\d+) ")


class ServerProcess:
    """A running server: where it listens and what it has logged."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.running = trio.Event()
        self.port = 0
        self._grown = trio.Event()

    async def read_log(self) -> None:
        """Collect the log, line by line, until the process ends."""
        assert self.process.stderr is not None
        rest = b""
        async for data in self.process.stderr:
            *lines, rest = (rest + data).split(b"\n")
            for line in map(bytes.decode, lines):
                self.lines.append(line)
                if match := _RUNNING.search(line):
                    self.port = int(match[3])
                    self.running.set()
            self._grown.set()
            self._grown = trio.Event()
        self.running.set()  # it has ended: whoever waits reads why in `lines`

    @property
    def records(self) -> list[dict[str, Any]]:
        """The log's records."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    async def logged(self, event: str, count: int = 1) -> None:
        """Wait until so many records of this event have been logged."""
        while sum(record["event"] == event for record in self.records) < count:
            await self._grown.wait()

    async def listening(self, count: int) -> None:
        """Wait until so many workers listen."""
        while sum("Running on" in line for line in self.lines) < count:
            await self._grown.wait()

    def ended(self) -> list[dict[str, Any]]:
        """The `stream ended` records."""
        return [r for r in self.records if r["event"] == "stream_ended"]

    async def stop(self) -> int:
        """Ask for a graceful end; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


@asynccontextmanager
async def server(
    command: Sequence[str] = SERVE, pass_fds: Sequence[int] = (), /, **env: str
) -> AsyncIterator[ServerProcess]:
    """Start a server on a free port, wait until it listens; end it with the block."""
    environment = {**os.environ, "PORT": "0", "LOG_FORMAT": "json", **env}
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process,
            command,
            cwd=ROOT,
            env=environment,
            stderr=-1,
            check=False,
            pass_fds=pass_fds,
        )
        process: trio.Process = await nursery.start(start)
        running = ServerProcess(process)
        nursery.start_soon(running.read_log)
        with trio.fail_after(60):  # several imports of a second each, on a busy machine
            await running.running.wait()
        assert running.port, "the server did not start:\n" + "\n".join(running.lines)
        yield running  # the nursery's block: a context manager made for it
        if process.returncode is None:
            process.kill()


def run_to_end(
    folder: Path, *words: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m WORDS` in a folder, and return what came of it."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        env={**os.environ, **env},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def children(pid: int) -> list[int]:
    """Return the processes that any thread of a process has started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


async def curl(*arguments: str, data: Any = None, check: bool = True) -> str:
    """Run curl; return head and body."""
    words = ["curl", "-sSN", "-i", "--max-time", "20", *arguments]
    if data is not None:
        words += ["-H", "content-type: application/json", "-d", json.dumps(data)]
    done = await trio.run_process(
        words, capture_stdout=True, capture_stderr=True, check=check
    )
    return done.stdout.decode()

"""Our own launch with several workers: replaced when they die, drained together."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.process import SERVE, children, curl, server
from tests.support.server.client import Client, events_of, get, info
from tests.support.server.servers import ServerProcess, start_supervised

LIVE = "/stream?n=20&every=0.1"


async def _start(folder: Path, **settings: str) -> ServerProcess:
    limits = {"drain_s": 10, "linger_s": 0.3}
    return await trio.to_thread.run_sync(
        partial(start_supervised, folder, limits=limits, workers=2, **settings)
    )


async def _open(port: int, target: str, pids: set[int]) -> dict[int, Client]:
    """Open streams until each worker has one; return them by worker."""
    streams: dict[int, Client] = {}
    while set(streams) != pids:
        client = await Client.connect(port)
        await client.say(get(target))
        await client.read_until(lambda data: b"data: 0" in data)
        pid = int(client.received.partition(b"x-pid: ")[2].partition(b"\r\n")[0])
        if pid in streams:
            client.stream.socket.close()
        else:
            streams[pid] = client
    return streams


async def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """The other worker's stream does not notice, and soon there are two again."""
    server = await _start(tmp_path)
    try:
        with trio.fail_after(40):
            pids = set(server.workers)
            streams = await _open(server.port, LIVE, pids)
            victim, other = pids
            os.kill(victim, signal.SIGKILL)
            async with streams[victim], streams[other]:
                answer = await streams[other].read_to_end_of_stream()
                assert len(events_of(answer)) == 20
            seen: set[int] = set()
            while len(seen | {other}) < 2:
                seen.add((await info(server.port))["pid"])
            assert victim not in seen
            server.process.terminate()
            wait = partial(server.process.wait, timeout=20)
            assert await trio.to_thread.run_sync(wait) == 0
    finally:
        server.kill()


@pytest.mark.parametrize("target", ["supervisor", "group"])
async def test_every_worker_drains_fully(tmp_path: Path, target: str) -> None:
    """A worker's stream completes, although the other worker ends long before."""
    server = await _start(tmp_path)
    try:
        with trio.fail_after(40):
            streams = await _open(server.port, LIVE, set(server.workers))
            streams.popitem()[1].stream.socket.close()  # that worker will end at once
            ((_, client),) = streams.items()
            if target == "group":
                server.signal_group(signal.SIGTERM)
            else:
                server.process.terminate()
            async with client:
                answer = await client.read_to_end()
                assert answer.endswith(b"0\r\n\r\n")
                assert len(events_of(answer)) == 20
            wait = partial(server.process.wait, timeout=20)
            assert await trio.to_thread.run_sync(wait) == 0
    finally:
        server.kill()


async def test_a_replacement_is_a_metric() -> None:
    """The supervisor answers no scrape: the new worker counts for it.

    "Running on" is logged a moment before the supervisor is told that it is ready.
    """
    with trio.fail_after(60):
        async with server(SERVE, WORKERS="2", WATCHDOG_TIMEOUT_SECS="1") as running:
            url = f"http://127.0.0.1:{running.port}/metrics"
            await running.listening(2)
            causes = [(signal.SIGKILL, "died|not_started"), (signal.SIGSTOP, "hung")]
            for number, (signum, reason) in enumerate(causes, 3):
                os.kill(children(running.process.pid)[0], signum)
                await running.listening(number)
                counted = re.compile(f'replacements_total{{reason="({reason})"}} 1')
                while not counted.search(
                    await curl("--max-time", "3", url, check=False)
                ):
                    pass
            assert await running.stop() == 0


async def test_workers_are_told_where_they_share_files() -> None:
    """All the same place, also those that start when it has become full."""
    with trio.fail_after(60):
        async with server(SERVE, WORKERS="2") as running:
            await running.listening(2)
            told = f"TRIO_AI_STREAM_SHARED_FILES={tempfile.gettempdir()}".encode()
            for pid in children(running.process.pid):
                environ = await trio.Path(f"/proc/{pid}/environ").read_bytes()
                assert told in environ.split(b"\0")
            assert await running.stop() == 0


@pytest.mark.parametrize("cause", ["stopped", "blocked"])
async def test_a_worker_that_hangs_is_replaced(tmp_path: Path, cause: str) -> None:
    """It is said where it stands, if it can tell, and the other does not notice."""
    server = await _start(tmp_path, WATCHDOG_TIMEOUT_SECS="1")
    try:
        with trio.fail_after(40):
            pids = set(server.workers)
            streams = await _open(server.port, LIVE, pids)
            victim, other = pids
            if cause == "stopped":
                os.kill(victim, signal.SIGSTOP)
            else:
                await _block(server.port, victim)
            async with streams[victim], streams[other]:
                answer = await streams[other].read_to_end_of_stream()
                assert len(events_of(answer)) == 20
                await streams[victim].read_to_end()  # reset, once it is killed
            seen: set[int] = set()
            while len(seen | {other}) < 2:
                seen.add((await info(server.port))["pid"])
            assert victim not in seen
            server.process.terminate()
            wait = partial(server.process.wait, timeout=20)
            assert await trio.to_thread.run_sync(wait) == 0
        log = server.log.read_text()
        assert f"worker {victim} has not turned its loop for 1 s; killing it" in log
        assert ("application.py" in log and "in _answer" in log) == (cause == "blocked")
    finally:
        server.kill()


async def _block(port: int, victim: int) -> None:
    """Block the loop of one of the workers that share a port."""
    while True:
        async with await Client.connect(port) as client:
            await client.say(get("/info"))
            await client.read_until(lambda data: data.endswith(b"}"))
            if b'"pid": %d' % victim in client.received:
                await client.say(get("/block"))
                return


async def test_the_exit_takes_no_time(tmp_path: Path) -> None:
    """Supervisor and workers leave the collector nothing to look at as they end."""
    server = await _start(tmp_path)
    try:
        server.process.terminate()
        wait = partial(server.process.wait, timeout=20)
        assert await trio.to_thread.run_sync(wait) == 0
        left = re.findall(
            r"left for the exit to collect: (\d+)", server.log.read_text()
        )
        assert len(left) == 3
        assert max(map(int, left)) < 1000
    finally:
        server.kill()


async def test_workers_drain_when_their_supervisor_is_gone(tmp_path: Path) -> None:
    """The pipe's end is the order: no orphan goes on serving."""
    server = await _start(tmp_path)
    try:
        with trio.fail_after(40):
            os.kill(server.process.pid, signal.SIGKILL)
            for pid in server.workers:
                descriptor = os.pidfd_open(pid)
                try:
                    await trio.lowlevel.wait_readable(descriptor)
                finally:
                    os.close(descriptor)
    finally:
        server.kill()

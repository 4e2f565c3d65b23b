"""The `hypercorn` command, hardened: every way to stop it, and what streams see."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.server.client import Client, events_of, get
from tests.support.server.servers import ServerProcess, start_process

DRAIN_S = 1.5
LIMITS = {"drain_s": DRAIN_S, "linger_s": 0.3, "write_stall_s": 30}
LIVE, SILENT = "/stream?n=6&every=0.1", "/stream?n=2&every=60"


@dataclass
class Streams:
    """What the clients of one server have: each kind several times."""

    live: list[Client]
    silent: list[Client]
    stalled: list[Client]

    @classmethod
    async def open(cls, port: int, each: int) -> Streams:
        """Open all, and see the first event of those that are read."""
        streams = cls([], [], [])
        for _ in range(each):
            for kind, target in (("silent", SILENT), ("live", LIVE)):
                client = await Client.connect(port)
                await client.say(get(target))
                await client.read_until(lambda data: b"data: 0" in data)
                getattr(streams, kind).append(client)
            client = await Client.connect(port, receive_bytes=4096)
            await client.say(get("/flood"))
            await client.read_until(lambda data: b"x-pid" in data)
            streams.stalled.append(client)
        return streams

    async def check(self, pid: int | None) -> None:
        """Each live stream is whole, each silent one told; of one worker, or of all."""
        for client in self.live:
            answer = await client.read_to_end_of_stream()
            assert events_of(answer) == [b"%d" % n for n in range(6)]
        for client in self.silent:
            if pid in (None, _pid(client)):
                answer = await client.read_to_end()
                assert events_of(answer) == [b"0", b"shutting_down"]
                assert answer.endswith(b"0\r\n\r\n")

    def close(self) -> None:
        """Close all."""
        for client in self.live + self.silent + self.stalled:
            client.stream.socket.close()


def _pid(client: Client) -> int:
    return int(client.received.partition(b"x-pid: ")[2].partition(b"\r\n")[0])


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_signal_drains_and_ends(workers: int, tmp_path: Path) -> None:
    """To the command, to a worker or to the group: streams are told, the end is 0."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for target in ("command", "worker", "group"):
                folder = tmp_path / target
                folder.mkdir()
                nursery.start_soon(_drain_one, folder, workers, target)


async def _drain_one(folder: Path, workers: int, target: str) -> None:
    start = partial(start_process, folder, limits=LIMITS, workers=workers)
    server = await trio.to_thread.run_sync(start)
    try:
        streams = await Streams.open(server.port, each=3)
        began = trio.current_time()
        pid = None
        if target == "command":
            server.process.terminate()
        elif target == "group":
            server.signal_group(signal.SIGTERM)
        else:
            pid = _pid(streams.silent[0])
            os.kill(pid, signal.SIGTERM)
        await streams.check(pid)
        if pid is None:
            code = await _exit_code(server)
            assert code == 0, server.log.read_text()
        else:
            await _until_gone(pid)
        assert trio.current_time() - began < DRAIN_S + 10  # the machine is shared
        streams.close()
        assert "Traceback" not in server.log.read_text()
    finally:
        server.kill()


async def test_the_end_comes_with_the_last_stream(tmp_path: Path) -> None:
    """With a drain of a minute the command still ends when its one stream has."""
    start = partial(start_process, tmp_path, limits={"drain_s": 60}, workers=1)
    server = await trio.to_thread.run_sync(start)
    try:
        with trio.fail_after(20):
            async with await Client.connect(server.port) as client:
                await client.say(get(LIVE))
                await client.read_until(lambda data: b"data: 0" in data)
                server.process.terminate()
                assert len(events_of(await client.read_to_end())) == 6
                began = trio.current_time()
                assert await _exit_code(server) == 0
                assert trio.current_time() - began < 10
    finally:
        server.kill()


async def test_a_second_signal_skips_the_wait(tmp_path: Path) -> None:
    """Ctrl-C twice ends a drain of a minute at once; the stream is still told."""
    start = partial(start_process, tmp_path, limits={"drain_s": 60}, workers=1)
    server = await trio.to_thread.run_sync(start)
    try:
        with trio.fail_after(20):
            async with await Client.connect(server.port) as client:
                await client.say(get(SILENT))
                await client.read_until(lambda data: b"data: 0" in data)
                server.signal_group(signal.SIGINT)
                with trio.move_on_after(0.5) as scope:
                    await client.read_to_end()
                assert scope.cancelled_caught
                server.signal_group(signal.SIGINT)
                assert events_of(await client.read_to_end()) == [b"0", b"shutting_down"]
                assert await _exit_code(server) == 0
    finally:
        server.kill()


async def _exit_code(server: ServerProcess) -> int:
    wait = partial(server.process.wait, timeout=20)
    return await trio.to_thread.run_sync(wait)


async def _until_gone(pid: int) -> None:
    """Wait for a process that is not our child."""
    descriptor = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)

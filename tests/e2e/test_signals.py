"""Signals at any moment and in any number end a server, once, and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from hypercorn.utils import check_multiprocess_shutdown_event

from tests.support.process import HYPERCORN, SERVE, ServerProcess, children
from tests.support.server.client import Client, events_of, get
from tests.support.server.servers import ROOT, start_process
from trio_ai_stream.server import serving

APP = "trio_ai_stream.app:app"


@contextmanager
def _running(command: list[str], **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server, once it listens; it is killed in a minute, so that no read hangs."""
    environ = {**os.environ, "PORT": "0", "LOG_FORMAT": "json", **env}
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        limit = threading.Timer(60, process.kill)
        limit.start()
        try:
            while b"Running on" not in (line := process.stderr.readline()):
                assert line, "it did not start"
            yield process
        finally:
            limit.cancel()
            process.kill()


@pytest.mark.parametrize(
    "command",
    [SERVE, [*HYPERCORN, "-b", "127.0.0.1:0", APP]],
    ids=["serve", "hypercorn"],
)
@pytest.mark.parametrize("pause_s", [0, 0.0005, 0.003])
def test_a_burst_of_signals_is_one_drain(command: list[str], pause_s: float) -> None:
    """Eight of them, until the process is gone: it ends at once, with status 0."""
    with _running(command) as process:
        for _ in range(8):
            process.send_signal(signal.SIGTERM)
            time.sleep(pause_s)
        assert process.wait(timeout=30) == 0


EARLY = """
import os, runpy, signal, sys
class Early:
    def find_spec(self, name, path=None, target=None):
        if name == "hypercorn" and os.getpid() == starter:
            os.kill(starter, signal.SIGHUP)
starter = os.getpid()
sys.meta_path.insert(0, Early())
sys.argv[1:] = ["serve"]
runpy.run_module("trio_ai_stream", run_name="__main__")
"""


@pytest.mark.parametrize("behind", [[], ["nohup"]], ids=["", "nohup"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_while_it_starts_does_not_end_it(
    workers: str, behind: list[str]
) -> None:
    """It is done once the server listens; workers that begin later need none."""
    command = [*behind, sys.executable, "-c", EARLY]
    with _running(command, WORKERS=workers) as process:
        assert process.stderr is not None
        while workers == "1" and b'"reloaded"' not in process.stderr.readline():
            assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_a_burst_does_not_stop_hypercorns_own_parent(tmp_path: Path) -> None:
    """With `workers` of 1 its handler can block itself; the worker lets it go on."""
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        server = start_process(folder, limits={"drain_s": 5}, workers=1)
        try:
            for _ in range(8):
                server.process.send_signal(signal.SIGTERM)
                time.sleep(0.001 * attempt)
            assert server.process.wait(timeout=30) in {0, 1}
        finally:
            server.kill()


STUCK = """
import multiprocessing, os, signal, sys

event = multiprocessing.get_context("spawn").Event()

def again(*_):
    event.set()

def work(event):
    import trio
    from trio_ai_stream.server import serving

    async def main():
        await serving.ordered(event)
        print("ordered", flush=True)
        with trio.move_on_after(5):
            await serving.keep_unstuck(event)

    trio.run(main)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, again)
    child = multiprocessing.get_context("spawn").Process(
        target=work, args=(event,), daemon=True
    )
    child.start()
    with event._cond:  # where the first signal's handler is when the second comes
        os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_parent_that_waits_for_itself_is_let_go(tmp_path: Path) -> None:
    """A signal inside the handler's own lock: the order is heard, the parent ends."""
    script = tmp_path / "stuck.py"
    script.write_text(STUCK)
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environ,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == b"ordered\n"
    assert b"released too many times" in done.stderr


async def test_a_parents_order_is_heard() -> None:
    """Also when its lock is free, which is the usual way."""
    event = multiprocessing.get_context("spawn").Event()
    trigger = partial(check_multiprocess_shutdown_event, event, trio.sleep)
    assert serving.event_of(trigger) is event
    assert serving.event_of(trio.sleep_forever) is None
    with trio.move_on_after(0.3) as scope:
        await serving.ordered(event)
    assert scope.cancelled_caught
    event.set()
    with trio.fail_after(30):
        await serving.ordered(event)


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize("workers", [0, 1])
async def test_a_signal_without_meaning_ends_nothing(
    signum: signal.Signals, workers: int, tmp_path: Path
) -> None:
    """SIGUSR1 and SIGUSR2, to the process that serves: its stream goes on."""
    start = partial(start_process, tmp_path, limits={"drain_s": 5}, workers=workers)
    server = await trio.to_thread.run_sync(start)
    try:
        with trio.fail_after(20):
            async with await Client.connect(server.port) as client:
                await client.say(get("/stream?n=5&every=0.1"))
                await client.read_until(lambda data: b"data: 0" in data)
                os.kill(server.workers[0], signum)
                assert len(events_of(await client.read_to_end_of_stream())) == 5
    finally:
        server.kill()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_signal_without_meaning_ends_no_serve(workers: str) -> None:
    """Neither parent nor worker, from the first imports until the drain."""
    environ = {**os.environ, "PORT": "0", "WORKERS": workers, "LOG_FORMAT": "json"}
    start = partial(trio.run_process, SERVE, cwd=ROOT, env=environ, stderr=-1)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(start)
            running = ServerProcess(process)
            nursery.start_soon(running.read_log)
            status = Path(f"/proc/{process.pid}/status")
            ignored = 0
            while not ignored >> (signal.SIGUSR2 - 1) & 1:  # the interpreter starts
                await trio.lowlevel.checkpoint()
                line = status.read_text().partition("SigIgn:")[2].split()[0]  # noqa: ASYNC240
                ignored = int(line, 16)
            while not running.running.is_set():
                _signal_all(process.pid)
                await trio.sleep(0.02)
            await running.listening(int(workers))
            _signal_all(process.pid)
            assert await running.stop() == 0
    assert "worker_ended" not in "".join(running.lines)


def _signal_all(pid: int) -> None:
    for each in [pid, *children(pid)]:
        for signum in (signal.SIGUSR1, signal.SIGUSR2):
            # One is ldconfig, which an import asks; of a worker the log would say it.
            with suppress(ProcessLookupError):
                os.kill(each, signum)


def _may_unshare() -> bool:
    command = ["unshare", "--pid", "--fork", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _may_unshare(), reason="needs a PID namespace")
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_process_1_hears_a_signal_while_it_starts(workers: str) -> None:
    """The kernel drops what process 1 has no handler for; it is kept, and it ends."""
    command = ["unshare", "--pid", "--fork", "--kill-child", *SERVE]
    environ = {**os.environ, "PORT": "0", "WORKERS": workers}
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process, command, cwd=ROOT, env=environ, check=False
            )
            process: trio.Process = await nursery.start(partial(start, stderr=-1))
            inner = f"/proc/{process.pid}/task/{process.pid}/children"
            maps, pids = "", list[str]()
            while "/msgspec/" not in maps:  # half of the imports are still to come
                await trio.lowlevel.checkpoint()
                if pids := Path(inner).read_text().split():  # noqa: ASYNC240 - no disk
                    maps = Path(f"/proc/{pids[0]}/maps").read_text()  # noqa: ASYNC240
            os.kill(int(pids[0]), signal.SIGTERM)
            assert await process.wait() == 0

"""The supervisor's slots: what becomes of one worker is nothing to the others."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_ai_stream.server import supervisor as module
from trio_ai_stream.server.supervisor import Supervisor

# A worker: "serve" until an order comes, "die" at once. Each start takes one word; the
# last one counts for all that follow.
WORKER = """
import os, socket, sys

folder, words = sys.argv[1], sys.argv[2:]
number = len(os.listdir(folder))
open(f"{folder}/{number}", "w").close()
link = socket.socket(fileno=int(os.environ["TRIO_AI_STREAM_LINK_FD"]))
if words[min(number, len(words) - 1)] == "die":
    sys.exit(1)
link.send(b"!")
sys.exit(0 if link.recv(1) == b"d" else 2)
"""


@pytest.fixture(autouse=True)
def _signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep this process's handlers, and let a slot's life be short."""
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "_YOUNG_S", 0.3)
    every = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]
    kept = [(signum, signal.getsignal(signum)) for signum in [*every, signal.SIGUSR2]]
    yield
    for signum, handler in kept:
        signal.signal(signum, handler)


def _supervisor(folder: Path, *words: str) -> Supervisor:
    starts = folder / "starts"
    starts.mkdir()
    command = [sys.executable, "-c", WORKER, str(starts), *words]
    return Supervisor(command, os.environ, descriptors=[], patience_s=60, hang_s=60)


async def _until_started(folder: Path, count: int) -> None:
    while len(list((folder / "starts").iterdir())) < count:
        await trio.sleep(0.01)  # noqa: ASYNC110 - other processes make the files


async def test_an_order_reaches_a_worker_that_is_being_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes during the fork; nobody is killed when the patience is over."""
    supervisor = _supervisor(tmp_path, "serve")
    real = trio.lowlevel.open_process

    async def open_process(*arguments: Any, **options: Any) -> trio.Process:
        os.kill(os.getpid(), signal.SIGTERM)
        await supervisor._draining.wait()
        return await real(*arguments, **options)

    monkeypatch.setattr(trio.lowlevel, "open_process", open_process)
    with trio.fail_after(10):
        assert await supervisor.run(1) == 0


async def test_a_fork_that_fails_ends_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said and tried again; the worker in the other slot lives on."""
    supervisor = _supervisor(tmp_path, "serve")
    real, calls = trio.lowlevel.open_process, 0

    async def open_process(*arguments: Any, **options: Any) -> trio.Process:
        nonlocal calls
        calls += 1
        if calls == 2:
            await trio.lowlevel.checkpoint()
            raise OSError(errno.EAGAIN, "no more processes")
        return await real(*arguments, **options)

    monkeypatch.setattr(trio.lowlevel, "open_process", open_process)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run, 2)
            await _until_started(tmp_path, 2)
            assert len(supervisor.pids) == 2
            os.kill(os.getpid(), signal.SIGTERM)
    events = [vars(record).get("event") for record in caplog.records]
    assert events == ["worker_not_started"]
    assert "no more processes" in caplog.text


async def test_young_deaths_in_one_slot_do_not_end_a_healthy_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bad slot goes on trying; once nobody is healthy, it is over."""
    monkeypatch.setattr(module, "_LONGEST_PAUSE_S", 0.05)
    supervisor = _supervisor(tmp_path, "serve", "die")
    status: list[int] = []

    async def run() -> None:
        status.append(await supervisor.run(2))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await _until_started(tmp_path, 1)
            (first,) = supervisor.pids[:1]
            await _until_started(tmp_path, 12)
            assert first in supervisor.pids
            assert not status
            os.kill(first, signal.SIGKILL)
    assert status == [1]


async def test_the_pause_after_young_deaths_doubles(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each slot for itself; five in a row and nobody healthy is the end."""
    monkeypatch.setattr(module, "_PAUSE_S", 0.5)
    supervisor = Supervisor([], {}, descriptors=[], patience_s=60, hang_s=60)
    starts: list[float] = []

    async def one_worker(_: str) -> str:
        starts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return "died"

    monkeypatch.setattr(supervisor, "_one_worker", one_worker)
    began = trio.current_time()
    assert await supervisor.run(1) == 1
    assert [round(at - began, 3) for at in starts] == [0, 0.5, 1.5, 3.5, 7.5]
    (record,) = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert vars(record)["event"] == "workers_given_up"


async def test_what_became_of_the_last_worker_is_told_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts the replacement, since the supervisor answers no scrape."""
    supervisor = _supervisor(tmp_path, "die", "serve")
    real, told = trio.lowlevel.open_process, []

    async def open_process(*arguments: Any, **options: Any) -> trio.Process:
        told.append(options["env"][module.REPLACES_VARIABLE])
        return await real(*arguments, **options)

    monkeypatch.setattr(trio.lowlevel, "open_process", open_process)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(supervisor.run, 1))
            await _until_started(tmp_path, 2)
            os.kill(os.getpid(), signal.SIGTERM)
    assert told == ["", "died"]

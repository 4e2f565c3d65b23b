"""The supervisor's slots: what becomes of one worker is nothing to the others."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_ai_stream.server import supervisor as module
from trio_ai_stream.server.signals import Notifier
from trio_ai_stream.server.supervisor import (
    BEAT,
    READY,
    REFUSED,
    RELOAD_DONE,
    Supervisor,
    _Worker,
)

# A worker: "serve" until an order comes, "die" at once, "fail" after a slow start,
# "refuse" to start, "reload" no sooner than it is told to go on. Each start takes one
# word; the last one counts for all that follow.
WORKER = """
import os, socket, sys, time

folder, started, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
for number in range(1000):
    try:
        open(f"{folder}/{number}", "x").close()
        break
    except FileExistsError:
        pass
link = socket.socket(fileno=int(os.environ["TRIO_AI_STREAM_LINK_FD"]))
word = words[min(number, len(words) - 1)]
os.write(started, f"{word} {os.getpid():20}\\n".encode())
if word == "refuse":
    link.send(b"\\x02the setting is wrong\\x02.")
if word not in {"serve", "reload"}:
    time.sleep(0.5 if word == "fail" else 0)
    sys.exit(1)
link.send(b"!")
if word == "reload":
    assert link.recv(1) == b"r"
    os.write(started, f"{word} {os.getpid():20}\\n".encode())
    assert link.recv(1) == b"g"
    link.send(b"\\x01")
sys.exit(0 if link.recv(1) == b"d" else 2)
"""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a slot's life be short."""
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "_YOUNG_S", 0.3)


class Watched(Supervisor):
    """A supervisor whose workers say as they start what they will do, and who."""

    def __init__(self, folder: Path, *words: str, **options: Any) -> None:
        self._theirs, self._ours = os.pipe()
        command = [sys.executable, "-c", WORKER, str(folder), str(self._ours), *words]
        options |= {"descriptors": [self._ours], "patience_s": 60, "hang_s": 60}
        super().__init__(command, os.environ, **options)

    async def started(self, count: int) -> dict[str, int]:
        """Wait for so many more starts; return the last worker of each kind."""
        said: dict[str, int] = {}
        for _ in range(count):
            await trio.lowlevel.wait_readable(self._theirs)
            line = b""
            while not line.endswith(b"\n"):
                line += os.read(self._theirs, 1)
            word, pid = line.split()
            said[word.decode()] = int(pid)
        return said


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Make a supervisor of such workers."""
    made: list[Watched] = []

    def make(*words: str, **options: Any) -> Watched:
        made.append(Watched(tmp_path, *words, **options))
        return made[-1]

    yield make
    for supervisor in made:
        os.close(supervisor._ours)
        os.close(supervisor._theirs)


async def test_an_order_reaches_a_worker_that_is_being_started(
    workers: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes during the fork; nobody is killed when the patience is over."""
    supervisor = workers("serve")
    real = trio.lowlevel.open_process

    async def open_process(*arguments: Any, **options: Any) -> trio.Process:
        os.kill(os.getpid(), signal.SIGTERM)
        await supervisor._draining.wait()
        return await real(*arguments, **options)

    monkeypatch.setattr(trio.lowlevel, "open_process", open_process)
    with trio.fail_after(10):
        assert await supervisor.run(1) == 0


async def test_a_fork_that_fails_ends_nothing_else(
    workers: Callable[..., Watched],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is said and tried again; the worker in the other slot lives on."""
    supervisor = workers("serve")
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
            await supervisor.started(2)
            assert len(supervisor.pids) == 2
            os.kill(os.getpid(), signal.SIGTERM)
    events = [vars(record).get("event") for record in caplog.records]
    assert events == ["worker_not_started"]
    assert "no more processes" in caplog.text


async def test_young_deaths_in_one_slot_do_not_end_a_healthy_worker(
    workers: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bad slot goes on trying; once nobody is healthy, it is over."""
    monkeypatch.setattr(module, "_LONGEST_PAUSE_S", 0.5)
    monkeypatch.setattr(module, "_YOUNG_S", 0.1)
    supervisor = workers("serve", "die")
    status: list[int] = []

    async def run() -> None:
        status.append(await supervisor.run(2))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            healthy = (await supervisor.started(12))["serve"]
            assert healthy in supervisor.pids
            assert not status
            os.kill(healthy, signal.SIGKILL)
    assert status == [1]


async def test_starts_that_fail_slowly_are_given_up_too(
    workers: Callable[..., Watched],
) -> None:
    """A refused start takes longer than a young death on a busy machine."""
    with trio.fail_after(30):
        assert await workers("fail").run(1) == 1


async def test_a_refused_start_is_said_once_and_not_tried_again(
    workers: Callable[..., Watched],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All workers would meet the same; the sentence is the parent's last word."""
    supervisor = workers("refuse")
    with trio.fail_after(30), pytest.raises(SystemExit) as caught:
        await supervisor.run(2)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "the setting is wrong\n"
    assert not caplog.records


async def test_a_refused_start_ends_no_worker_that_serves(
    workers: Callable[..., Watched],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever once could serve goes on; the other is started again, with its reason."""
    notifier, ready = Notifier({}), trio.Event()
    monkeypatch.setattr(notifier, "ready", ready.set)
    supervisor = workers("serve", "refuse", notifier=notifier)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run, 1)
            await supervisor.started(1)
            await ready.wait()
            nursery.start_soon(supervisor._fill_slot)
            await supervisor.started(2)
            os.kill(os.getpid(), signal.SIGTERM)
    assert "ended with code 1 (the setting is wrong); starting another" in caplog.text


async def test_a_reload_is_over_when_every_worker_has_done_it(
    workers: Callable[..., Watched], tmp_path: Path
) -> None:
    """Only then does the service manager hear READY again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "manager"))
        manager.setblocking(False)
        hear = partial(trio.socket.from_stdlib_socket(manager).recv, 4096)
        notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
        supervisor = workers("reload", notifier=notifier)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.run, 2)
                await supervisor.started(2)
                assert (await hear()).startswith(b"READY=1")
                os.kill(os.getpid(), signal.SIGHUP)
                assert (await hear()).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                await supervisor.started(2)
                with pytest.raises(BlockingIOError):
                    manager.recv(4096)
                supervisor._order(b"g")
                assert (await hear()).startswith(b"READY=1")
                os.kill(os.getpid(), signal.SIGTERM)


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


async def test_a_slot_that_fails_for_days_does_not_end_the_others(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pause stays as long as the longest, whatever the number of its failures."""
    monkeypatch.setattr(module, "_PAUSE_S", 0.5)
    supervisor = Supervisor([], {}, descriptors=[], patience_s=60, hang_s=60)
    monkeypatch.setattr(supervisor, "_workers", [SimpleNamespace(healthy=True)])
    starts: list[float] = []

    async def one_worker(_: str) -> str:
        starts.append(trio.current_time())
        if len(starts) == 1200:
            supervisor._draining.set()
        await trio.lowlevel.checkpoint()
        return "not_started"

    monkeypatch.setattr(supervisor, "_one_worker", one_worker)
    await supervisor._fill_slot()
    assert starts[-1] - starts[-2] == pytest.approx(30)


async def test_what_became_of_the_last_worker_is_told_to_the_next(
    workers: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts the replacement, since the supervisor answers no scrape."""
    supervisor = workers("die", "serve")
    real, told = trio.lowlevel.open_process, []

    async def open_process(*arguments: Any, **options: Any) -> trio.Process:
        told.append(options["env"][module.REPLACES_VARIABLE])
        return await real(*arguments, **options)

    monkeypatch.setattr(trio.lowlevel, "open_process", open_process)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(supervisor.run, 1))
            await supervisor.started(2)
            os.kill(os.getpid(), signal.SIGTERM)
    assert told == ["", "not_started"]


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_refusal_is_heard_however_it_is_cut(size: int) -> None:
    """What stands in its sentence is no sign, and no part of it is lost."""
    said = "RATE_LIMIT: expected more, got '!'. " * 300 + "\u00fc"
    worker = _Worker(socket.socket(), 0.0, reloads=1)
    with worker.link:
        data = BEAT + REFUSED + said.encode() + RELOAD_DONE + REFUSED + BEAT
        for start in range(0, len(data), size):
            worker.hear(data[start : start + size])
        assert worker.refusal == said + RELOAD_DONE.decode()
        assert (worker.ready, worker.reloads) == (False, 1)
        worker.hear(READY + RELOAD_DONE)
        assert (worker.ready, worker.reloads) == (True, 0)

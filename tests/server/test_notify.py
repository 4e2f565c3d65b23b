"""The service manager is told what it asked to be told, and by one process only."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.process import SERVE, server
from trio_ai_stream.server.signals import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


@pytest.mark.parametrize("workers", [1, 2])
async def test_ready_alive_and_stopping_are_said_in_order(
    workers: int, manager: socket.socket
) -> None:
    """READY when clients are served, again after a reload; WATCHDOG; STOPPING once."""
    environ = {
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": "400000",
        "WORKERS": str(workers),
    }
    said: list[bytes] = []
    alive, reloaded = trio.Event(), trio.Event()

    async def hear() -> None:
        sock = trio.socket.from_stdlib_socket(manager)
        while True:
            said.append((await sock.recv(4096)).partition(b"\n")[0])
            if b"READY=1" in said and said[-2:] == [b"WATCHDOG=1"] * 2:
                alive.set()
            if b"RELOADING=1" in said and said[-1] == b"READY=1":
                reloaded.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            async with server(SERVE, **environ) as running:
                await alive.wait()
                running.process.send_signal(signal.SIGHUP)
                await reloaded.wait()
                assert await running.stop() == 0
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel(reason="the test is over")
    assert [word for word in said if word != b"WATCHDOG=1"] == [
        *(b"READY=1", b"RELOADING=1", b"READY=1", b"STOPPING=1")
    ]


def test_a_reload_in_a_drain_is_not_told(manager: socket.socket) -> None:
    """The manager would show a server that ends as one that serves."""
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.stopping()
    notifier.reloading()
    notifier.ready()
    assert manager.recv(4096).startswith(b"STOPPING=1")
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


async def test_without_a_manager_nothing_is_said() -> None:
    """Neither without NOTIFY_SOCKET, nor a heartbeat that another process owes."""
    with trio.fail_after(30):
        await Notifier({}).keep_alive()
        other = {"NOTIFY_SOCKET": "/none", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
        await Notifier(other).keep_alive()
        odd = {"NOTIFY_SOCKET": "/none", "WATCHDOG_USEC": "\u00b2"}
        await Notifier(odd).keep_alive()
    assert not other


def test_an_abstract_socket_is_understood(caplog: pytest.LogCaptureFixture) -> None:
    """Its name begins with `@`; a manager that is gone is said, and ends nothing."""
    name = f"trio-ai-stream-test-{os.getpid()}"
    notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        notifier.ready()
        assert sock.recv(100) == b"READY=1\nSTATUS=serving"
    notifier.stopping()
    assert "NOTIFY_SOCKET" in caplog.text

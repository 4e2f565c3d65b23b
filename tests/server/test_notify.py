"""The service manager is told what it asked to be told, and by one process only."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.support.process import SERVE, server
from trio_ai_stream.server.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        yield sock


@pytest.mark.parametrize("workers", [1, 2])
async def test_ready_alive_and_stopping_are_said_in_order(
    workers: int, manager: socket.socket
) -> None:
    """READY comes when clients are served, WATCHDOG until the end, STOPPING once."""
    environ = {
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": "400000",
        "WORKERS": str(workers),
    }
    with trio.fail_after(60):
        async with server(SERVE, **environ) as running:
            heard: list[bytes] = []
            while heard[-2:] != [b"WATCHDOG=1", b"WATCHDOG=1"] or not any(
                line.startswith(b"READY=1") for line in heard
            ):
                heard.append(await trio.to_thread.run_sync(manager.recv, 4096))
            assert await running.stop() == 0
    manager.setblocking(False)
    while True:
        try:
            heard.append(manager.recv(4096))
        except BlockingIOError:
            break
    said = [line.partition(b"\n")[0] for line in heard]
    assert said.count(b"READY=1") == said.count(b"STOPPING=1") == 1
    assert said.index(b"READY=1") < said.index(b"STOPPING=1")


async def test_without_a_manager_nothing_is_said() -> None:
    """Neither without NOTIFY_SOCKET, nor a heartbeat that another process owes."""
    with trio.fail_after(1):
        await Notifier({}).keep_alive()
        other = {"NOTIFY_SOCKET": "/none", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
        await Notifier(other).keep_alive()
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

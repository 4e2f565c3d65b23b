"""Socket activation: sockets of the service manager outlive each server on them."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from functools import partial

import pytest
import trio

from tests.support.process import ROOT, SERVE, server
from tests.support.server.client import Client, get, status_of
from trio_ai_stream.server.sockets import ActivationError, activated

# As a service manager starts a service: the sockets from 3 on, and whom they are for.
MANAGER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
STREAM = b'{"model":"simulator/default?chunks=20&delay_ms=100","prompt":"hi"}'


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket that every process started here inherits."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def _on(sock: socket.socket) -> list[str]:
    return [sys.executable, "-c", MANAGER, str(sock.fileno()), *SERVE[1:]]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_restart_refuses_nobody(workers: str, listener: socket.socket) -> None:
    """Who connects while one drains is answered by the next; the live stream ends."""
    port = listener.getsockname()[1]
    start = partial(server, _on(listener), [listener.fileno()], WORKERS=workers)
    with trio.fail_after(90):
        async with start() as first:
            assert first.port == port
            async with await Client.connect(port) as live:
                await live.say(_post(STREAM))
                await live.read_until(lambda data: b'"content"' in data)
                first.process.terminate()
                await first.logged("drain_began")
                async with await Client.connect(port) as late:
                    await late.say(get("/health"))
                    answer = await live.read_to_end_of_stream()
                    assert b'"type":"done"' in answer
                    assert await first.process.wait() == 0
                    async with start() as second:
                        answer = await late.read_until(lambda data: b"}" in data)
                        assert status_of(answer) == 200
                        assert await second.stop() == 0


async def test_sockets_that_let_strangers_in_need_keys() -> None:
    """Without API_KEYS the manager's socket must be on loopback, as HOST must."""
    with socket.create_server(("", 0)) as sock:
        text = await _refusal(sock)
    assert "LISTEN_FDS: expected 127.0.0.1, ::1 or localhost" in text
    assert "Traceback" not in text


async def test_what_does_not_listen_is_refused() -> None:
    """A connection (Accept=yes) is no listening socket; it is said, with status 2."""
    with socket.socket() as sock:
        text = await _refusal(sock)
    assert "LISTEN_FDS: expected listening stream sockets" in text
    assert "Traceback" not in text


def test_what_is_for_another_process_is_left_alone() -> None:
    """A shell in between would pass the variables on; nobody else sees them either."""
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "http"}
    assert activated(environ) == []
    assert environ == {}
    for number in ("x", "\u00b2"):  # the latter is a digit to Python, but no number
        with pytest.raises(ActivationError, match=f"expected a number, got '{number}'"):
            activated({"LISTEN_FDS": number, "LISTEN_PID": str(os.getpid())})


async def _refusal(sock: socket.socket) -> str:
    with trio.fail_after(30):
        done = await trio.run_process(
            _on(sock),
            cwd=ROOT,
            capture_stderr=True,
            check=False,
            pass_fds=[sock.fileno()],
        )
    assert done.returncode == 2
    return done.stderr.decode()


def _post(body: bytes) -> bytes:
    head = b"POST /chat HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json"
    return b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body)

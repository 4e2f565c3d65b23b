"""A peer whose host vanishes, for real: its address is taken away from a namespace.

Needs root and `ip netns`, as a container has them; elsewhere these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio

from tests.support.network import own_network
from trio_ai_stream.upstream.transport import TransportLimits, UpstreamTransport

NAME = f"gone{os.getpid() % 100_000}"
NET = f"10.231.{os.getpid() % 250}"
OURS, THEIRS = f"{NET}.1", f"{NET}.2"
PEER_S = 2.0
SERVER = """
import socket, threading
def serve(sock):
    while data := sock.recv(65536):
        print(data.split()[1].decode(), flush=True)
        if b"/silent" not in data:
            sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
listener = socket.create_server(("0.0.0.0", 8000))
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def ip(*words: str) -> None:
    """Run iproute2."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def inside(*words: str) -> None:
    """Run iproute2 in the namespace."""
    ip("netns", "exec", NAME, "ip", *words)


@pytest.fixture
def network() -> Iterator[None]:
    """A network of its own for the test."""
    with own_network():
        yield


@pytest.fixture
def server(network: None) -> Iterator[subprocess.Popen[str]]:
    """Run a server on a host of its own, which can be made to vanish."""
    try:
        ip("netns", "add", NAME)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces cannot be made here")
    try:
        ip("link", "add", NAME, "type", "veth", "peer", "name", "far", "netns", NAME)
        ip("addr", "add", f"{OURS}/24", "dev", NAME)
        ip("link", "set", NAME, "up")
        inside("addr", "add", f"{THEIRS}/24", "dev", "far")
        inside("link", "set", "far", "up")
        command = ["ip", "netns", "exec", NAME, sys.executable, "-c", SERVER]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield process
            process.kill()
    finally:
        subprocess.run(["ip", "netns", "del", NAME], check=False)
        subprocess.run(["ip", "link", "del", NAME], check=False, capture_output=True)


def vanish() -> None:
    """Take the host's address away: it answers nothing any more, not even refusals."""
    inside("addr", "del", f"{THEIRS}/24", "dev", "far")


async def come_back(after_s: float) -> None:
    """Give the host its address again."""
    await trio.sleep(after_s)
    inside("addr", "add", f"{THEIRS}/24", "dev", "far")


def make_transport() -> UpstreamTransport:
    """Make a transport that gives a peer up after `PEER_S`."""
    return UpstreamTransport(limits=TransportLimits(peer_timeout_s=PEER_S))


async def post(
    transport: UpstreamTransport, path: str, connect_s: float = 10
) -> httpx.Response:
    """Send a POST."""
    request = httpx.Request(
        "POST",
        f"http://{THEIRS}:8000{path}",
        content=b"body",
        extensions={"timeout": {"connect": connect_s}},
    )
    response = await transport.handle_async_request(request)
    await response.aread()
    return response


def test_the_machines_own_network_stays_as_it_is(
    server: subprocess.Popen[str],
) -> None:
    """A browser in another test would lose what it loads."""
    shown = [Path(f"/proc/{who}/net/dev").read_text() for who in ("thread-self", "1")]
    assert [NAME in text for text in shown] == [True, False]


async def test_a_request_that_reached_nobody_is_sent_again(
    server: subprocess.Popen[str],
) -> None:
    """Found by TCP_USER_TIMEOUT; nothing was confirmed, so a new connection is made."""
    transport = make_transport()
    with trio.fail_after(30):
        assert (await post(transport, "/first")).status_code == 200
        vanish()
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back, PEER_S + 0.5)
            assert (await post(transport, "/second")).status_code == 200
        assert PEER_S * 0.9 < time.monotonic() - began < PEER_S + 8
        await transport.aclose()
    server.kill()
    assert server.stdout is not None
    assert server.stdout.read().split() == ["/first", "/second"]


async def test_a_host_that_stays_away_is_unreachable(
    server: subprocess.Popen[str],
) -> None:
    """The new connection is not made either: an error that says nothing was read."""
    transport = make_transport()
    with trio.fail_after(30):
        assert (await post(transport, "/first")).status_code == 200
        vanish()
        with pytest.raises((httpx.ConnectTimeout, httpx.ConnectError)):
            await post(transport, "/second", connect_s=1)
        await transport.aclose()


async def test_a_host_that_vanishes_before_it_answers_is_found_in_silence(
    server: subprocess.Popen[str],
) -> None:
    """Keepalive finds it; the request was read, so it is not sent again."""
    transport = make_transport()
    failed = trio.Event()

    async def wait_for_answer() -> None:
        with pytest.raises(httpx.ReadError):
            await post(transport, "/silent")
        failed.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_answer)
            assert server.stdout is not None
            line = await trio.to_thread.run_sync(server.stdout.readline)
            assert line == "/silent\n"
            vanish()
            began = time.monotonic()
            await failed.wait()
            assert time.monotonic() - began < 2 * PEER_S + 8
        await transport.aclose()

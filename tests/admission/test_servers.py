"""Real servers that share: workers of one host, and hosts with one Valkey."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import uuid
from pathlib import Path
from typing import Any, Self

import httpx
import trio

from cancel_lab.process import free_port
from tests.admission.gates import until
from tests.admission.valkey import Server
from tests.support.process import ServerProcess, server

ENDLESS = "simulator/fast?chunks=100000&delay_ms=50"


def sharing(valkey: Server, **settings: str) -> dict[str, str]:
    """The settings of a host that shares its limits, with two workers."""
    return {
        "WORKERS": "2",
        "RATE_LIMIT": "10000",
        "REDIS_URL": valkey.url,
        "REDIS_PREFIX": uuid.uuid4().hex,
        "REDIS_LEASE_SECS": "1",
        "REDIS_TIMEOUT_SECS": "5",
        "DRAIN_TIMEOUT_SECS": "0",
        "UPSTREAM": "simulator",
        **settings,
    }


class Streams:
    """Streams of one server that are held open; each on a connection of its own."""

    def __init__(self, running: ServerProcess) -> None:
        self._port = running.port
        self._held: list[trio.SocketStream] = []
        self.statuses: list[int] = []

    async def open(self, count: int, name: str) -> None:
        """Start that many streams, one after the other; remember their statuses."""
        body = json.dumps({"prompt": "hi", "model": ENDLESS}).encode()
        for number in range(count):
            head = (
                "POST /chat HTTP/1.1\r\nHost: localhost\r\n"
                f"X-Request-ID: {name}-{number}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            self._held.append(stream)
            await stream.send_all(head.encode() + body)
            answer = await stream.receive_some()
            self.statuses.append(int(answer.split(b" ", 2)[1]))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for stream in self._held:
            await trio.aclose_forcefully(stream)


async def get(running: ServerProcess, path: str) -> Any:
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.get(f"http://127.0.0.1:{running.port}{path}")


async def test_two_hosts_of_two_workers_hold_one_limit(valkey: Server) -> None:
    """Two servers with two workers each hold one number of streams between them.

    Any of the four lists all streams and cancels any; a killed worker's permits come
    back within the lease, and nobody else's stream ends.
    """
    env = sharing(valkey, MAX_CONCURRENT_STREAMS="7")
    with trio.fail_after(150):
        async with (
            server(**env) as one,
            server(**env) as two,
            Streams(one) as at_one,
            Streams(two) as at_two,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(at_one.open, 6, "one")
                nursery.start_soon(at_two.open, 6, "two")
            statuses = at_one.statuses + at_two.statuses
            assert sorted(statuses) == [200] * 7 + [503] * 5
            listed = (await get(two, "/streams")).json()["streams"]
            assert len(listed) == 7
            assert len((await get(one, "/streams")).json()["streams"]) == 7
            assert (await get(one, "/ready")).json()["limits"] == "shared"
            victim = next(entry["id"] for entry in listed if entry["id"][:3] == "two")
            async with httpx.AsyncClient(timeout=10) as client:
                url = f"http://127.0.0.1:{one.port}/streams/{victim}"
                cancelled = await client.delete(url)
                assert cancelled.json()["outcome"] == "cancelled"
                assert (await client.delete(url)).status_code == 404
            await at_one.open(1, "after-cancel")
            assert at_one.statuses[-1] == 200

            os.kill(busiest_worker(two.process.pid), signal.SIGKILL)
            began = trio.current_time()
            await until_admitted(at_one)
            assert (
                trio.current_time() - began < 4
            )  # the lease is 1 s; the rest is slack


def busiest_worker(parent: int) -> int:
    """Return the number of the worker process with the most sockets."""
    # A child is listed under the thread that started it; Trio starts it in a thread.
    lists = Path(f"/proc/{parent}/task").glob("*/children")
    children = " ".join(path.read_text("ascii") for path in lists)
    return max(map(int, children.split()), key=connections)


def connections(pid: int) -> int:
    """Return how many sockets a process has open."""
    folder = f"/proc/{pid}/fd"
    links = (os.readlink(f"{folder}/{name}") for name in os.listdir(folder))
    return sum(link.startswith("socket:") for link in links)


async def until_admitted(held: Streams) -> None:
    """Ask for a stream until there is a permit."""
    attempt = 0
    while held.statuses[-1] != 200 or not attempt:
        attempt += 1
        await held.open(1, f"again-{attempt}")


WORKERS = 2


async def test_workers_of_one_host_add_up_without_valkey() -> None:
    """Without REDIS_URL any worker lists and cancels all streams, and sums metrics."""
    env = {"WORKERS": str(WORKERS), "RATE_LIMIT": "10000", "DRAIN_TIMEOUT_SECS": "0"}
    with trio.fail_after(120):
        async with server(**env) as running, Streams(running) as held:
            while str(running.lines).count("Running on") < WORKERS:
                await get(running, "/health")  # until the second worker listens too
            await held.open(8, "s")
            assert held.statuses == [200] * 8
            for _ in range(4):
                listed = (await get(running, "/streams")).json()
                assert len(listed["streams"]) == 8
                metrics = (await get(running, "/metrics")).text
                live = re.search(r'streams_live{endpoint="/chat"} (\S+)', metrics)
                assert live is not None
                assert float(live[1]) == 8
                assert "trio_ai_stream_workers 2.0" in metrics
            async with httpx.AsyncClient(timeout=10) as client:
                for number in range(8):
                    url = f"http://127.0.0.1:{running.port}/streams/s-{number}"
                    assert (await client.delete(url)).json()["outcome"] == "cancelled"
            assert (await get(running, "/streams")).json()["streams"] == []
            async with httpx.AsyncClient(timeout=10) as client:
                begun = await client.post(
                    f"http://127.0.0.1:{running.port}/chat",
                    json={"prompt": "hi", "model": "simulator/fast?chunks=3"},
                    headers={"X-Stream-Grace": "10"},
                )
            for _ in range(6):  # to either worker: all have what the first had
                again = await get(running, begun.headers["x-stream-resume"])
                assert (again.status_code, again.content) == (200, begun.content)


async def test_live_streams_do_not_notice_that_valkey_is_lost(
    own_valkey: Server,
) -> None:
    """Streams go on through an outage; new ones are admitted by the fallback."""
    env = sharing(own_valkey, WORKERS="1", REDIS_TIMEOUT_SECS="0.25")
    with trio.fail_after(120):
        async with server(**env) as running, Streams(running) as held:
            await held.open(2, "before")
            own_valkey.stop()
            await held.open(2, "during")
            assert held.statuses == [200] * 4
            assert (await get(running, "/ready")).json()["limits"] == "fallback"
            own_valkey.start()
            ready = {"limits": "fallback"}
            while ready["limits"] != "shared":
                ready = (await get(running, "/ready")).json()
            assert len((await get(running, "/streams")).json()["streams"]) == 4
            assert running.ended() == []
            await until(lambda: len(changes(running)) == 3)
    assert changes(running) == ["gate_shared", "gate_fallback", "gate_shared"]


async def test_closed_limits_keep_nobody_from_a_stream_that_lives(
    own_valkey: Server,
) -> None:
    """Its client comes back to it and cancels it; a new one is refused."""
    env = sharing(
        own_valkey,
        WORKERS="1",
        RATE_LIMIT_FALLBACK="closed",
        REDIS_TIMEOUT_SECS="0.25",
    )
    body = {"prompt": "hi", "model": ENDLESS}
    grace = {"X-Stream-Grace": "60"}
    with trio.fail_after(60):
        async with (
            server(**env) as running,
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{running.port}", timeout=10
            ) as client,
        ):
            async with client.stream("POST", "/chat", json=body, headers=grace) as had:
                way = had.headers["x-stream-resume"]
            own_valkey.stop()
            refused = await client.post("/chat", json=body)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error_type"] == "limits_unavailable"
            async with client.stream("GET", way) as back:
                assert back.status_code == 200
            (listed,) = (await client.get("/streams")).json()["streams"]
            cancelled = await client.delete(f"/streams/{listed['id']}")
            assert cancelled.json()["outcome"] == "cancelled"


async def test_a_drain_ends_no_stream_of_another_host(valkey: Server) -> None:
    """Its reader there is cut off without a last event, and goes on elsewhere.

    The log said that it was told.
    """

    def host() -> dict[str, str]:
        peer = f"127.0.0.1:{free_port()}"
        return {**env, "WORKERS": "1", "PEER_ADDRESS": peer}

    env = sharing(valkey)
    body, grace = {"prompt": "hi", "model": ENDLESS}, {"X-Stream-Grace": "60"}
    had = b""
    with trio.fail_after(60):
        async with (
            server(**host()) as owner,
            server(**host()) as other,
            httpx.AsyncClient(timeout=10) as client,
        ):
            url = f"http://127.0.0.1:{owner.port}/chat"
            async with client.stream("POST", url, json=body, headers=grace) as begun:
                way = begun.headers["x-stream-resume"]
            reader = await trio.open_tcp_stream("127.0.0.1", other.port)
            async with reader:
                ask = f"GET {way} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                await reader.send_all(ask.encode())
                while b"\nid: " not in had:
                    had += await reader.receive_some()
                other.process.terminate()
                with contextlib.suppress(trio.BrokenResourceError):
                    async for block in reader:
                        had += block
            await other.logged("drain_over")
            assert b'"type":"error"' not in had
            assert not had.endswith(b"\r\n0\r\n\r\n")
            last = int(re.findall(rb"\nid: (\d+)\n", had)[-1])
            reader = await trio.open_tcp_stream("127.0.0.1", owner.port)
            async with reader:
                ask = f"GET {way}&after={last} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                await reader.send_all(ask.encode())
                had = b""
                while b"\nid: " not in had:
                    had += await reader.receive_some()
            assert b"\nid: %d\n" % (last + 1) in had
    (said,) = (r for r in other.records if r["event"] == "drain_over")
    assert said["message"].endswith("1 live; streams are told, others are cut off")


def changes(running: ServerProcess) -> list[str]:
    """Return the records of the gate's changes, in order."""
    return [
        record["event"]
        for record in running.records
        if str(record["event"]).startswith("gate_")
    ]

"""How a client can hold Hypercorn as it is; the server's answers are tested elsewhere.

As in test_stock_defects.py a test here passes because of a defect.
"""

from __future__ import annotations

import pytest
import trio
from hypercorn.config import Config

from tests.support.server import frames as f
from tests.support.server.client import Client, get
from tests.support.server.servers import (
    LocalServer,
    local_config,
    serve_stock_while,
)


async def test_a_client_that_does_not_read_holds_the_shutdown() -> None:
    """The write is shielded without a limit, so `graceful_timeout` never takes hold."""
    config = local_config()
    config.graceful_timeout = 0.1
    outlived: list[bool] = []

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port, receive_bytes=4096) as client:
            await client.say(get("/flood"))
            await client.read_until(lambda data: b"200" in data)
            await trio.testing.wait_all_tasks_blocked(0.1)
            server.stop.set()
            await trio.sleep(1)
            outlived.append(not server.application.disconnected)

    await serve_stock_while(body, config=config)
    assert outlived == [True]


async def test_a_closed_window_does_not_stop_the_application() -> None:
    """A pop of nothing wakes the paused writer, so the buffer grows: here by 20 MB."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + f.request(1, b"/flood"))
            await server.application.produced(20_000_000)

    await serve_stock_while(body)


@pytest.mark.parametrize(
    "data",
    [
        # The preface stops the idle timer; only a stream's end would start it again.
        f.hello(),
        # The disconnect that follows a complete response cancels the very send that was
        # about to start it.
        f.hello() + f.request(1, b"/ok"),
        # A stream that was reset never says that it has ended.
        f.hello() + f.request(1, b"/stream?n=9&every=1") + f.reset(1),
    ],
    ids=["no request", "a finished request", "a reset request"],
)
async def test_an_idle_h2c_connection_is_never_closed(data: bytes) -> None:
    """The idle timer is stopped, and what would start it again does not happen."""
    config = local_config()
    config.keep_alive_timeout = 0.1
    assert not await _closes_within(0.7, data, config)


async def test_an_early_refusal_leaves_a_task_behind() -> None:
    """The reader waits for room in a queue that nobody reads any more."""
    left: list[int] = []

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            post = b"POST /unread?after=0.2 HTTP/1.1\r\nHost: t\r\n"
            await client.say(post + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(30):
                await client.say(b"4\r\nmore\r\n")
                await trio.testing.wait_all_tasks_blocked(0.001)
            await client.read_until(lambda data: b"too large" in data)
        await trio.sleep(0.3)
        tasks = trio.lowlevel.current_root_task()
        assert tasks is not None
        left.append(_count(tasks, "_run_handler"))

    await serve_stock_while(body)
    assert left == [1]


async def test_the_end_is_not_seen_behind_a_pipelined_request() -> None:
    """The reader is parked while a response streams, so a FIN stays unread."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/stream?n=2&every=1") + get("/ok"))
            await client.read_until(lambda data: b"data: 0" in data)
        await trio.sleep(0.5)
        assert server.application.disconnected == 0

    await serve_stock_while(body)


async def test_a_stream_that_fails_midway_is_left_hanging_over_http2() -> None:
    """Neither END_STREAM nor RST_STREAM follows, so the client waits for ever."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + f.request(1, b"/boom-midway"))
            with trio.move_on_after(0.5) as scope:
                await client.frames_until(lambda seen: f.ended(seen, 1))
            assert scope.cancelled_caught

    await serve_stock_while(body)


async def test_a_frame_that_says_it_has_16_mib_is_awaited() -> None:
    """h2 looks at a frame's length once it has the whole frame."""
    declared = f.hello() + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(1_000_000)
    assert not await _closes_within(0.5, declared, local_config())


async def test_a_misspelt_key_is_taken_in_silence() -> None:
    """`Config.from_mapping` sets whatever it is given."""
    await trio.lowlevel.checkpoint()
    assert vars(Config.from_mapping({"graceful_timeuot": 1})) == {"graceful_timeuot": 1}


async def _closes_within(seconds: float, data: bytes, config: Config) -> bool:
    closed: list[bool] = []

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(data)
            with trio.move_on_after(seconds):
                await client.read_to_end()
            closed.append(client.ended)

    await serve_stock_while(body, config=config)
    return closed == [True]


def _count(task: trio.lowlevel.Task, name: str) -> int:
    """Count the tasks below `task` whose name ends so."""
    below = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return sum(_count(child, name) for child in below) + task.name.endswith(name)

"""Workers of one host ask each other for their streams over Unix sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from tests.admission.streams import Streams
from trio_ai_stream.admission.directory import DirectoryUnavailableError, PeerDirectory


@asynccontextmanager
async def running(folder: Path, *all_streams: Streams) -> AsyncIterator[PeerDirectory]:
    """Run one worker's directory for each of the streams; yield the first."""
    workers = [PeerDirectory(folder, streams, timeout_s=1) for streams in all_streams]
    async with trio.open_nursery() as nursery:
        for worker in workers:
            await nursery.start(worker.run)
        yield workers[0]
        nursery.cancel_scope.cancel(reason="the test is over")


def sockets(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


async def test_workers_list_each_others_streams(tmp_path: Path) -> None:
    """Each worker sees all streams of the host, an owner only its own."""
    streams = [
        Streams("one", a="ann"),
        Streams("two", b="bob"),
        Streams("three", c="ann"),
    ]
    async with running(tmp_path, *streams) as worker:
        everything = await worker.list_streams(None)
        hers = await worker.list_streams("ann")
    assert everything.complete
    assert {entry["id"] for entry in everything.entries} == {"a", "b", "c"}
    assert {entry["id"] for entry in hers.entries} == {"a", "c"}
    assert sockets(tmp_path) == []


async def test_a_cancel_reaches_the_worker_that_has_the_stream(tmp_path: Path) -> None:
    """The owner's answer comes back; nobody's stream and nobody's id are None."""
    theirs = Streams("two", b="bob")
    async with running(tmp_path, Streams("one", a="ann"), theirs) as worker:
        assert await worker.cancel("b", "ann") is None
        assert await worker.cancel("b", "bob") == {"id": "b", "cancelled_at": "two"}
        assert await worker.cancel("b", "bob") is None
        assert await worker.cancel("a", None) == {"id": "a", "cancelled_at": "one"}


async def test_a_worker_knows_what_its_siblings_answered(tmp_path: Path) -> None:
    """A generation is known wherever it was; another owner's is not."""
    streams = [Streams("one", a="ann"), Streams("two", b="bob")]
    async with running(tmp_path, *streams) as worker:
        for owner in ("bob", None):
            assert await worker.has_generation("gen-b", owner)
        assert await worker.has_generation("gen-a", "ann")
        assert not await worker.has_generation("gen-b", "ann")


async def test_a_sibling_is_found_by_its_socket(tmp_path: Path) -> None:
    """Its name leads there for as long as the socket is; nobody else's does."""
    async with running(tmp_path, Streams("one")) as worker:
        path = tmp_path / "streams-abc.sock"
        assert await worker.address_of("abc") is None
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            assert await worker.address_of("abc") == (path.name, 0)
            path.unlink()


async def test_a_dead_workers_socket_is_cleared_away(tmp_path: Path) -> None:
    """A socket that nobody listens on counts as nobody, and is removed."""
    path = tmp_path / "peer-1-abc.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running(tmp_path, Streams("one", a="ann")) as worker:
        listing = await worker.list_streams(None)
        assert listing.complete
        assert not path.exists()
        assert await worker.cancel("x", None) is None


async def test_a_worker_that_hangs_makes_the_answer_incomplete(tmp_path: Path) -> None:
    """A sibling that accepts and never answers costs one timeout: 503, not 404."""
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(tmp_path / "peer-1-abc.sock"))
        hanging.listen()
        await _is_not_heard(tmp_path)


async def test_a_hung_worker_with_a_full_queue_is_not_taken_for_a_dead_one(
    tmp_path: Path,
) -> None:
    """Its listing said that it was complete, and a cancel of its stream 404."""
    with ExitStack() as stack:
        hanging = stack.enter_context(socket.socket(socket.AF_UNIX))
        hanging.bind(str(tmp_path / "peer-1-abc.sock"))
        hanging.listen(0)
        with suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(hanging.getsockname())
        await _is_not_heard(tmp_path)


@pytest.mark.parametrize("said", [b"", b'[{"id"', b"{\n"])
async def test_a_worker_that_breaks_off_has_not_answered(
    said: bytes, tmp_path: Path
) -> None:
    """Whoever had no time to say it all, and whoever says something else."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(said)

    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.bind(str(tmp_path / "peer-1-abc.sock"))
        sock.listen()
        async with trio.open_nursery() as nursery:
            listener = trio.SocketListener(sock)
            await nursery.start(trio.serve_listeners, serve, [listener])
            await _is_not_heard(tmp_path)
            nursery.cancel_scope.cancel(reason="the test is over")


async def _is_not_heard(folder: Path) -> None:
    """Look for the streams of a worker that cannot say them."""
    async with running(folder, Streams("one", a="ann")) as worker:
        with trio.fail_after(30):
            assert not (await worker.list_streams(None)).complete
            with pytest.raises(DirectoryUnavailableError):
                await worker.cancel("x", None)
            with pytest.raises(DirectoryUnavailableError):
                await worker.has_generation("gen-x", "ann")


async def test_rubbish_on_a_workers_socket_does_it_no_harm(tmp_path: Path) -> None:
    """A question that is none ends its own connection only."""
    async with running(tmp_path, Streams("one"), Streams("two", b="bob")) as worker:
        for path in sockets(tmp_path):
            for rubbish in (b"", b"{\n", b"\xff\n", b"x" * 1000):
                async with await trio.open_unix_socket(path) as stream:
                    await stream.send_all(rubbish)
        assert await worker.cancel("b", None) == {"id": "b", "cancelled_at": "two"}

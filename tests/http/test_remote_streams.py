"""The live view's knowledge of other processes, over their real directory."""

from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.http.test_live import snapshots, watch
from tests.support.completions import over
from tests.support.world import World, world
from trio_ai_stream.admission.directory import Listing, LocalDirectory, PeerDirectory
from trio_ai_stream.http.live_view import ASK_S, MAX_OWNERS, RemoteStreams


async def sibling(w: World, folder: Path) -> None:
    """Make a world one of the workers that share `folder`."""
    directory = PeerDirectory(folder, w.services.registry)
    await w.nursery.start(directory.run)
    w.services.directory = directory
    w.app = type(w.app)(w.services, w._start)


async def test_a_sibling_workers_stream_is_listed_without_its_tasks(
    tmp_path: Path,
) -> None:
    """It comes within a second or so and goes when it has ended."""
    with trio.fail_after(20):
        async with world() as here, world() as there:
            await sibling(here, tmp_path)
            await sibling(there, tmp_path)
            chat = there.chat("simulator/endless")
            mine = here.chat("simulator/endless")
            subscriber = watch(here)
            while not subscriber.body or len(snapshots(subscriber)[-1]["streams"]) < 2:
                await subscriber.news.wait()
            own, other = snapshots(subscriber)[-1]["streams"]
            assert (own["elsewhere"], other["elsewhere"]) == (False, True)
            assert own["task"] is not None
            assert other["task"] is None
            assert other["model"] == "simulator/endless"
            age = trio.current_time() - other["began_at"]
            assert 0 <= age < 10
            chat.leave()
            while len(snapshots(subscriber)[-1]["streams"]) > 1:
                await subscriber.news.wait()
            for visit in (mine, subscriber):
                visit.leave()
                await over(visit)


async def test_it_is_said_that_another_process_does_not_answer(tmp_path: Path) -> None:
    """Its streams may run, so what is listed is not all; and so until it does."""
    with trio.fail_after(20):
        async with world() as here:
            await sibling(here, tmp_path)
            hung = tmp_path / "peer-hung.sock"
            with trio.socket.socket(trio.socket.AF_UNIX) as listening:
                await listening.bind(str(hung))
                listening.listen()
                subscriber = watch(here)
                while not subscriber.body:
                    await subscriber.news.wait()
                assert snapshots(subscriber)[-1]["complete"] is False
            while not snapshots(subscriber)[-1]["complete"]:  # it is gone
                await subscriber.news.wait()
            assert snapshots(subscriber)[-1]["total"] == 0
            subscriber.leave()
            await over(subscriber)


async def test_who_asks_meanwhile_is_not_told_that_nothing_runs(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Another subscriber has asked, and has no answer yet."""
    async with world() as w:
        listing = trio.Event()

        class Slow(Counting):
            async def list_streams(self, owner: str | None) -> Listing:
                await listing.wait()
                return await super().list_streams(owner)

        directory = Slow(tmp_path, w.services.registry)
        elsewhere = RemoteStreams(directory, lambda _id: False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(elsewhere.streams, None)
            await wait_all_tasks_blocked()
            assert not (await elsewhere.streams(None)).complete
            listing.set()
        assert (await elsewhere.streams(None)).complete


class Counting(PeerDirectory):
    """A directory that counts how often it is asked."""

    asked = 0

    async def list_streams(self, owner: str | None) -> Listing:
        """Count, and ask."""
        self.asked += 1
        return await super().list_streams(owner)


async def test_the_others_are_asked_once_a_second_for_each_owner(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """However many watch, and however often they look."""
    async with world() as w:
        directory = Counting(tmp_path, w.services.registry)
        elsewhere = RemoteStreams(directory, lambda _id: False)
        for _ in range(40):
            for owner in ("a", "b", None):
                assert not (await elsewhere.streams(owner)).streams
            await trio.sleep(ASK_S / 4)
        assert directory.asked == 3 * 10


async def test_what_is_kept_is_bounded(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Owners come and go; the oldest are forgotten."""
    async with world() as w:
        directory = Counting(tmp_path, w.services.registry)
        elsewhere = RemoteStreams(directory, lambda _id: False)
        for number in range(3 * MAX_OWNERS):
            await elsewhere.streams(str(number))
        assert len(elsewhere._heard) == MAX_OWNERS


async def test_a_process_that_is_alone_asks_nobody() -> None:
    """With the local directory there is no elsewhere."""
    async with world() as w:
        streams = w.services.registry
        elsewhere = RemoteStreams(LocalDirectory(streams), lambda _id: False)
        heard = await elsewhere.streams(None)
        assert (heard.streams, heard.complete) == ((), True)

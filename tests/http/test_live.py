"""`GET /streams/live`, on the mock clock."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.completions import over
from tests.support.world import Visit, World, world
from trio_ai_stream.http.watchers import MAX_WATCHERS, Watchers
from trio_ai_stream.wire.record import Outcome

KEYS = {"API_KEYS": "first-key,second-key", "ADMIN_KEYS": "admin-key"}


def watch(w: World, key: str = "") -> Visit:
    """Begin to watch."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return w.visit(b"", "/streams/live", method="GET", headers=headers)


def told(watcher: Visit) -> list[tuple[str, dict[str, Any]]]:
    """What the watcher was told: (event, data)."""
    blocks = watcher.body.decode().split("\n\n")
    pairs = [b.split("\n") for b in blocks if b.startswith("event: ")]
    return [(head[7:], json.loads(data[6:])) for head, data in pairs]


def snapshots(watcher: Visit) -> list[dict[str, Any]]:
    """The snapshots among that."""
    return [data for event, data in told(watcher) if event == "snapshot"]


async def test_a_stream_is_seen_from_its_start_to_its_end(
    autojump_clock: MockClock,
) -> None:
    """Its tree while it lives, its ending when it is over, then nothing."""
    async with world() as w:
        watcher = watch(w)
        await trio.sleep(1)
        chat = w.chat("simulator/endless")
        await trio.sleep(2)
        (stream,) = snapshots(watcher)[-1]["streams"]
        assert stream["state"] == "streaming"
        assert stream["holds_upstream"] is True
        (live,) = w.services.registry
        live.stop(Outcome.CANCELLED)
        await over(chat)
        await trio.sleep(1)
        ended = next(data for event, data in told(watcher) if event == "ended")
        assert ended["id"] == stream["id"] == live.request_id
        assert ended["outcome"] == "cancelled"
        assert ended["upstream_closed_ms"] == 0
        assert ended["told"] is True
        assert snapshots(watcher)[-1]["streams"] == []
        assert b"hello" not in watcher.body
        watcher.leave()
        await over(watcher)
        assert len(w.services.watchers) == 0
        w.assert_clean()


async def test_a_watcher_is_told_only_of_changes(autojump_clock: MockClock) -> None:
    """Nothing runs: one empty snapshot, then a heartbeat after each silence."""
    async with world() as w:
        watcher = watch(w)
        await trio.sleep(13)
        assert len(snapshots(watcher)) == 1
        assert watcher.body.count(b": heartbeat\n\n") == 3  # every 4 s
        watcher.leave()
        await over(watcher)


async def test_a_busy_stream_is_looked_at_four_times_a_second(
    autojump_clock: MockClock,
) -> None:
    """However many events a stream has, its watcher gets four snapshots a second."""
    async with world() as w:
        chat = w.chat("simulator/endless")
        await trio.sleep(1)
        watcher = watch(w)
        await trio.sleep(10)
        assert 39 <= len(snapshots(watcher)) <= 42
        for visit in (chat, watcher):
            visit.leave()
            await over(visit)


async def test_a_drain_ends_the_watching_at_once(autojump_clock: MockClock) -> None:
    """The last event is `bye`, so that a watcher never holds a shutdown."""
    async with world() as w:
        watcher = watch(w)
        await trio.sleep(1.1)
        before = trio.current_time()
        w.services.registry.begin_drain()
        await over(watcher)
        assert trio.current_time() == before
        assert told(watcher)[-1] == ("bye", {"reason": "draining"})
        assert watcher.ended.is_set()


async def test_watching_is_no_stream(autojump_clock: MockClock) -> None:
    """A watcher takes no permit and is in no list of streams."""
    async with world(permits=1) as w:
        watcher = watch(w)
        await trio.sleep(1)
        assert w.permits.statistics().held == 0
        assert len(w.services.registry) == 0
        chat = w.chat("simulator/fast")
        await over(chat)
        assert chat.types[-1] == "done"
        watcher.leave()
        await over(watcher)
        assert len(w.records) == 1


async def test_there_is_a_last_watcher(autojump_clock: MockClock) -> None:
    """One too many is told so under 503; when one leaves there is room again."""
    async with world() as w:
        watchers = [watch(w) for _ in range(MAX_WATCHERS)]
        await trio.sleep(1)
        assert w.services.watchers.full
        refused = watch(w)
        await over(refused)
        assert refused.status == 503
        assert told(refused) == [("bye", {"reason": "too_many_watchers"})]
        watchers[0].leave()
        await over(watchers[0])
        late = watch(w)
        await trio.sleep(1)
        assert late.status == 200
        for watcher in [*watchers[1:], late]:
            watcher.leave()
            await over(watcher)


@pytest.mark.parametrize(
    ("key", "seen"),
    [("first-key", {"first"}), ("second-key", {"second"}), ("admin-key", None)],
)
async def test_a_key_sees_its_own_streams(
    autojump_clock: MockClock, key: str, seen: set[str] | None
) -> None:
    """Another's streams are neither shown nor announced; an operator sees all."""
    async with world(env=KEYS) as w:
        watcher = watch(w, key)
        await trio.sleep(0.5)
        for owner in ("first", "second"):
            w.visit(
                {"prompt": "x", "model": "simulator/endless"},
                headers={
                    "authorization": f"Bearer {owner}-key",
                    "x-request-id": owner,
                },
            )
        await trio.sleep(1)
        expected = {"first", "second"} if seen is None else seen
        assert {s["id"] for s in snapshots(watcher)[-1]["streams"]} == expected
        w.services.registry.end_streams()
        await trio.sleep(1)
        endings = {data["id"] for event, data in told(watcher) if event == "ended"}
        assert endings == expected
        watcher.leave()
        await over(watcher)


async def test_without_a_key_there_is_nothing_to_see() -> None:
    """Where keys are needed, the live view needs one."""
    async with world(env=KEYS) as w:
        watcher = watch(w)
        await over(watcher)
        assert watcher.status == 401


async def test_head_does_not_stream() -> None:
    """HEAD is answered at once."""
    async with world() as w:
        visit = w.visit(b"", "/streams/live", method="HEAD")
        await over(visit)
        assert (visit.status, visit.body) == (200, b"")


def test_watchers_are_counted_out_whatever_happens() -> None:
    """An error inside the watching leaves no watcher behind."""
    watchers = Watchers(limit=1)
    watcher = object()

    def fail() -> None:
        with watchers.watch(watcher):  # type: ignore[arg-type]
            assert watchers.full
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not watchers.full

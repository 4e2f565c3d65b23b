"""`GET /streams/live`, on the mock clock."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.completions import over
from tests.support.world import Visit, World, world
from trio_ai_stream.http.live_view import Heard, LiveView
from trio_ai_stream.http.services import MAX_SUBSCRIBERS, Subscriber, Subscribers
from trio_ai_stream.wire.record import Outcome

KEYS = {"API_KEYS": "first-key,second-key", "ADMIN_KEYS": "admin-key"}


def watch(w: World, key: str = "") -> Visit:
    """Begin to watch."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return w.visit(b"", "/streams/live", method="GET", headers=headers)


def told(subscriber: Visit) -> list[tuple[str, dict[str, Any]]]:
    """What the subscriber was told: (event, data)."""
    blocks = subscriber.body.decode().split("\n\n")
    pairs = [b.split("\n") for b in blocks if b.startswith("event: ")]
    return [(head[7:], json.loads(data[6:])) for head, data in pairs]


def snapshots(subscriber: Visit) -> list[dict[str, Any]]:
    """The snapshots among that."""
    return [data for event, data in told(subscriber) if event == "snapshot"]


async def test_a_stream_is_seen_from_its_start_to_its_end(
    autojump_clock: MockClock,
) -> None:
    """Its tree while it lives, its ending when it is over, then nothing."""
    async with world() as w:
        subscriber = watch(w)
        await trio.sleep(1)
        chat = w.chat("simulator/endless")
        await trio.sleep(2)
        (stream,) = snapshots(subscriber)[-1]["streams"]
        assert stream["state"] == "streaming"
        assert stream["holds_upstream"] is True
        (live,) = w.services.registry
        live.stop(Outcome.CANCELLED)
        await over(chat)
        await trio.sleep(1)
        ended = next(data for event, data in told(subscriber) if event == "ended")
        assert ended["id"] == stream["id"] == live.request_id
        assert ended["outcome"] == "cancelled"
        assert ended["upstream_closed_ms"] == 0
        assert ended["told"] is True
        assert snapshots(subscriber)[-1]["streams"] == []
        assert b"hello" not in subscriber.body
        subscriber.leave()
        await over(subscriber)
        assert len(w.services.subscribers) == 0
        w.assert_clean()


async def test_a_finishing_stream_is_listed_and_not_counted(
    autojump_clock: MockClock,
) -> None:
    """While the rest of its answer is read, and only to whoever may see it."""
    async with world(env=KEYS) as w:
        own, other = watch(w, "first-key"), watch(w, "second-key")
        body = {"prompt": "hello", "model": "simulator/fast?done_ms=700"}
        key = {"authorization": "Bearer first-key"}
        chat = w.visit(body, headers=key)
        await over(chat)
        await trio.sleep(1)
        (ended,) = [data for event, data in told(own) if event == "ended"]
        assert ended["finishing"] is True
        seen = [one for one in snapshots(own) if one["streams"]]
        assert seen[-1]["streams"][0]["state"] == "finishing"
        assert seen[-1]["total"] == seen[-1]["more"] == 0
        assert seen[-1]["states"] == {}
        assert snapshots(own)[-1]["streams"] == []
        assert [one for one in snapshots(other) if one["streams"]] == []
        for visit in (own, other):
            visit.leave()
            await over(visit)


async def test_a_watcher_is_told_only_of_changes(autojump_clock: MockClock) -> None:
    """Nothing runs: one empty snapshot, then a heartbeat after each silence."""
    async with world() as w:
        subscriber = watch(w)
        await trio.sleep(13)
        assert len(snapshots(subscriber)) == 1
        assert subscriber.body.count(b": heartbeat\n\n") == 3  # every 4 s
        subscriber.leave()
        await over(subscriber)


async def test_a_busy_stream_is_looked_at_four_times_a_second(
    autojump_clock: MockClock,
) -> None:
    """However many events a stream has, its subscriber gets four snapshots a second."""
    async with world() as w:
        chat = w.chat("simulator/endless")
        await trio.sleep(1)
        subscriber = watch(w)
        await trio.sleep(10)
        assert 39 <= len(snapshots(subscriber)) <= 42
        for visit in (chat, subscriber):
            visit.leave()
            await over(visit)


async def test_where_nothing_runs_a_drain_ends_the_watching_at_once(
    autojump_clock: MockClock,
) -> None:
    """The last event is `bye`, so that a subscriber never holds a shutdown."""
    async with world() as w:
        subscriber = watch(w)
        await trio.sleep(1.1)
        before = trio.current_time()
        w.services.registry.begin_drain()
        await over(subscriber)
        assert trio.current_time() == before
        assert told(subscriber)[-1] == ("bye", {"reason": "draining"})
        assert subscriber.ended.is_set()


async def test_a_drain_is_watched_to_its_end(autojump_clock: MockClock) -> None:
    """The number is true until the last stream has ended; then `bye`, at once."""
    async with world() as w:
        subscriber = watch(w)
        chats = [w.chat("simulator/endless") for _ in range(2)]
        await trio.sleep(1.1)
        assert snapshots(subscriber)[-1]["draining"] is False
        w.services.registry.begin_drain()
        await trio.sleep(1)
        seen = snapshots(subscriber)[-1]
        assert (seen["total"], seen["draining"]) == (2, True)
        chats[0].leave()
        await over(chats[0])
        await trio.sleep(1)
        assert snapshots(subscriber)[-1]["total"] == 1
        before = trio.current_time()
        w.services.registry.end_streams()
        await over(chats[1])
        await over(subscriber)
        assert trio.current_time() == before
        assert [name for name, _ in told(subscriber)[-3:]] == [
            "ended",
            "snapshot",
            "bye",
        ]
        assert snapshots(subscriber)[-1]["total"] == 0


class Steps(trio.abc.Instrument):
    """Counts the steps of one task."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Called by Trio."""
        self.count += task is self.task


async def test_a_look_at_many_streams_lets_others_run(
    autojump_clock: MockClock,
) -> None:
    """However many streams there are, other tasks run after each hundred of them."""
    async with world(permits=101, env={"RATE_LIMIT": "1000"}) as w:
        chats = [w.chat("simulator/no-token") for _ in range(101)]
        await trio.sleep(1)
        view = LiveView(w.services, Subscriber(None), None)  # type: ignore[arg-type]
        steps = Steps(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(steps)
        assert b'"total":101' in await view.changes(Heard(complete=True))
        trio.lowlevel.remove_instrument(steps)
        assert steps.count == 2
        for chat in chats:
            chat.leave()
            await over(chat)


async def test_what_ends_during_a_look_is_not_listed(
    autojump_clock: MockClock,
) -> None:
    """Nor counted: other tasks run while many streams are looked at."""
    async with world(permits=101, env={"RATE_LIMIT": "1000"}) as w:
        chats = [w.chat("simulator/no-token") for _ in range(101)]
        await trio.sleep(1)
        first, *_, last = w.services.registry

        class Ending(Subscriber):
            """Ends the first stream when the last one is looked at."""

            looks = 0

            def sees(self, owner: str) -> bool:
                self.looks += 1
                if self.looks == len(chats):
                    first.close(outcome=Outcome.CANCELLED)
                return super().sees(owner)

        view = LiveView(w.services, Ending(None), None)  # type: ignore[arg-type]
        said = json.loads((await view.changes(Heard())).partition(b"data: ")[2])
        listed = [stream["id"] for stream in said["streams"]]
        assert first.request_id not in listed
        assert last.request_id in listed
        assert (said["total"], said["more"]) == (100, 0)
        assert said["states"] == {"waiting": 100}
        for chat in chats:
            chat.leave()
            await over(chat)


async def test_watching_is_no_stream(autojump_clock: MockClock) -> None:
    """A subscriber takes no permit and is in no list of streams."""
    async with world(permits=1) as w:
        subscriber = watch(w)
        await trio.sleep(1)
        assert w.permits.held == 0
        assert len(w.services.registry) == 0
        chat = w.chat("simulator/fast")
        await over(chat)
        assert chat.types[-1] == "done"
        subscriber.leave()
        await over(subscriber)
        assert len(w.records) == 1


async def test_there_is_a_last_watcher(autojump_clock: MockClock) -> None:
    """One too many is told so under 503; when one leaves there is room again."""
    async with world() as w:
        subscribers = [watch(w) for _ in range(MAX_SUBSCRIBERS)]
        await trio.sleep(1)
        assert w.services.subscribers.full
        refused = watch(w)
        await over(refused)
        assert refused.status == 503
        assert told(refused) == [("bye", {"reason": "too_many_watchers"})]
        subscribers[0].leave()
        await over(subscribers[0])
        late = watch(w)
        await trio.sleep(1)
        assert late.status == 200
        for subscriber in [*subscribers[1:], late]:
            subscriber.leave()
            await over(subscriber)


@pytest.mark.parametrize(
    ("key", "seen"),
    [("first-key", {"first"}), ("second-key", {"second"}), ("admin-key", None)],
)
async def test_a_key_sees_its_own_streams(
    autojump_clock: MockClock, key: str, seen: set[str] | None
) -> None:
    """Another's streams are neither shown nor announced; an operator sees all."""
    async with world(env=KEYS) as w:
        subscriber = watch(w, key)
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
        assert {s["id"] for s in snapshots(subscriber)[-1]["streams"]} == expected
        w.services.registry.end_streams()
        await trio.sleep(1)
        endings = {data["id"] for event, data in told(subscriber) if event == "ended"}
        assert endings == expected
        subscriber.leave()
        await over(subscriber)


async def test_without_a_key_there_is_nothing_to_see() -> None:
    """Where keys are needed, the live view needs one."""
    async with world(env=KEYS) as w:
        subscriber = watch(w)
        await over(subscriber)
        assert subscriber.status == 401


async def test_head_does_not_stream() -> None:
    """HEAD is answered at once."""
    async with world() as w:
        visit = w.visit(b"", "/streams/live", method="HEAD")
        await over(visit)
        assert (visit.status, visit.body) == (200, b"")


def test_watchers_are_counted_out_whatever_happens() -> None:
    """An error inside the watching leaves no subscriber behind."""
    subscribers = Subscribers(limit=1)
    subscriber = object()

    def fail() -> None:
        with subscribers.subscribe(subscriber):  # type: ignore[arg-type]
            assert subscribers.full
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not subscribers.full


async def test_all_are_counted_and_one_more_tree_can_be_asked_for(
    autojump_clock: MockClock,
) -> None:
    """Forty streams come with their trees, all are counted, `?tree=` adds one."""
    async with world() as w:
        chats = [w.chat("simulator/endless") for _ in range(45)]
        await trio.sleep(2)
        last = list(w.services.registry)[-1].request_id
        asked = {"method": "GET", "query": f"tree={last}"}
        subscriber = w.visit(b"", "/streams/live", **asked)
        await trio.sleep(1)
        seen = snapshots(subscriber)[0]
        assert seen["total"] == len(chats) == len(seen["streams"])
        assert seen["states"] == {"streaming": 45}
        assert sum(s["task"] is not None for s in seen["streams"]) == 41
        assert seen["streams"][-1]["task"] is not None
        for stream in list(w.services.registry):
            stream.stop(Outcome.CANCELLED)
        for chat in chats:
            await over(chat)

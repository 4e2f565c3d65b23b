"""What a snapshot shows of a stream in each of its states, on the mock clock."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.support.completions import over
from tests.support.world import BUDGETS, World, world
from trio_ai_stream.stream.budgets import REUSE_S
from trio_ai_stream.stream.snapshot import NurseryView, StreamView, snapshot

ORIGIN = "https://page.test"


def view(w: World) -> StreamView:
    """The snapshot of the one stream there is."""
    (stream,) = w.services.registry
    return snapshot(stream)


def own(shown: StreamView) -> NurseryView:
    """The stream's own nursery."""
    assert shown.task is not None
    return next(n for n in shown.task.nurseries if n.label == "stream")


async def test_a_connecting_stream_shows_its_dialling(
    autojump_clock: MockClock,
) -> None:
    """Before upstream answers, the first-token budget is the innermost scope."""
    async with world() as w:
        w.reachable = False
        visit = w.chat()
        await trio.sleep(1)
        shown = view(w)
        assert (shown.state, shown.holds_upstream, shown.events) == (
            "connecting",
            False,
            0,
        )
        dues = {scope.label: scope.due for scope in own(shown).scopes}
        began = shown.began_at
        assert dues == {
            "stop": None,
            "deadline": began + 100,
            "first_token": began + 20,
        }
        visit.leave()
        await over(visit)


async def test_a_streaming_stream_shows_when_silence_would_end_it(
    autojump_clock: MockClock,
) -> None:
    """The idle scope is due as long after the last block as the budget says."""
    async with world() as w:
        visit = w.chat("simulator/silent")
        await trio.sleep(5)
        shown = view(w)
        assert shown.state == "streaming"
        assert shown.holds_upstream
        assert shown.events == 5
        scopes = own(shown).scopes
        assert [scope.label for scope in scopes] == ["stop", "deadline", "idle"]
        idle_due = scopes[-1].due
        assert idle_due is not None
        await over(visit)
        assert trio.current_time() == idle_due
        assert visit.events[-1]["error_type"] == "stream_idle_timeout"


@pytest.mark.parametrize(
    ("headers", "outer"),
    [({}, []), ({"origin": ORIGIN}, [("request", ["ASGIConnection._listen"])])],
    ids=["direct", "through-quart"],
)
async def test_the_tree_is_trios_own(
    headers: dict[str, str],
    outer: list[tuple[str, list[str]]],
    autojump_clock: MockClock,
) -> None:
    """The stream's nursery, Quart's beside it; no child waits for the timers."""
    async with world(env={"CORS_ALLOW_ORIGINS": ORIGIN}) as w:
        body = {"prompt": "hello", "model": "simulator/endless"}
        visit = w.visit(body, headers=headers)
        for until_s in (1, BUDGETS.heartbeat_s):
            await trio.sleep(until_s)
            shown = view(w)
            assert shown.task is not None
            names = [
                (n.label, [t.name.split()[0] for t in n.tasks])
                for n in shown.task.nurseries
            ]
            assert names == [*outer, ("stream", [])]
        visit.leave()
        await over(visit)


async def test_an_ending_stream_shows_the_bound_of_its_last_event(
    autojump_clock: MockClock,
) -> None:
    """To a client that does not read, the terminal event has `write_s` and no more."""
    async with world() as w:
        visit = w.chat("simulator/silent")
        await trio.sleep(9.9)
        visit.reading = trio.Event()  # the client stops reading
        await trio.sleep(1)
        shown = view(w)
        visit.reading.set()
        assert (shown.state, shown.outcome) == ("ending", "stream_idle_timeout")
        assert not shown.holds_upstream
        assert [scope.label for scope in own(shown).scopes] == ["terminal_event"]
        await over(visit)


@pytest.mark.parametrize(
    ("model", "lasts_s"),
    [("simulator/fast?done_ms=600", 0.6), ("simulator/late-end", 1)],
    ids=["read", "given-up"],
)
@pytest.mark.parametrize("path", ["/chat", "graced"])
async def test_a_finishing_stream_shows_its_shield(
    model: str, lasts_s: float, path: str, autojump_clock: MockClock
) -> None:
    """Its task reads the rest of the answer behind a shield, and is then seen no more.

    It is no live stream any longer: its client has been told, its permit is back.
    """
    async with world(env={"GRACE_MAX_SECS": "9"}) as w:
        graced = path == "graced"
        headers = {"x-stream-grace": "9"} if graced else {}
        visit = w.visit({"prompt": "hello", "model": model}, headers=headers)
        finishing = w.services.registry.finishing
        await trio.sleep(0.1)
        assert len(w.services.registry) == 0
        (stream,) = finishing
        shown = snapshot(stream)
        assert (shown.state, shown.outcome) == ("finishing", "completed")
        assert shown.task is not None
        (rest,) = shown.task.scopes
        assert (rest.label, rest.shield) == ("rest", True)
        assert rest.due is not None
        labels = [nursery.label for nursery in shown.task.nurseries]
        assert labels == (["grace"] if graced else [])
        over_at = rest.due - REUSE_S + lasts_s
        await trio.sleep_until(over_at - 0.01)
        assert stream in finishing
        await trio.sleep_until(over_at + 0.01)
        assert not finishing
        assert stream.rest_task is None
        await over(visit)
        w.assert_clean()


async def test_looking_changes_nothing(autojump_clock: MockClock) -> None:
    """A stream that is looked at all the time ends as one that nobody sees."""
    times = []
    for looks in (0, 200):
        async with world() as w:
            began = trio.current_time()
            visit = w.chat("simulator/silent")
            for _ in range(looks):
                await trio.sleep(0.01)
                view(w)
            await over(visit)
            times.append(round(trio.current_time() - began, 6))
            assert w.record.outcome == "stream_idle_timeout"
    assert times[0] == times[1]

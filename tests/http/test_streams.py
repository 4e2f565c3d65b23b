"""`/streams`: seeing and cancelling live streams."""

from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from scripts.openapi_documents import StreamList
from tests.support.completions import ask, over, payloads
from tests.support.world import Visit, World, world
from trio_ai_stream.http.auth import key_id
from trio_ai_stream.wire.documents import Cancellation
from trio_ai_stream.wire.record import Outcome

KEYS = {"API_KEYS": "first-key,second-key", "ADMIN_KEYS": "admin-key"}


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"}


async def request(w: World, method: str, path: str, key: str = "") -> Visit:
    """Send a request without body and wait for its end."""
    headers = bearer(key) if key else {}
    visit = w.visit({}, path, method=method, headers=headers)
    await over(visit)
    return visit


async def seen(w: World, key: str = "") -> set[str]:
    """The ids of the streams that a key sees."""
    visit = await request(w, "GET", "/streams", key)
    found = msgspec.json.decode(visit.body, type=StreamList)
    return {stream.id for stream in found.streams}


async def test_a_stream_is_described(autojump_clock: MockClock) -> None:
    """Id, client, model, endpoint, state, ages and counts; no prompt."""
    async with world() as w:
        visit = ask(w, "simulator/default?endless=1", headers={"x-request-id": "mine"})
        await trio.sleep(2)
        listing = await request(w, "GET", "/streams")
        assert listing.headers["cache-control"] == "no-store"
        assert b"hello" not in listing.body
        (stream,) = msgspec.json.decode(listing.body, type=StreamList).streams
        assert stream.id == "mine"
        assert stream.client == "ip:127.0.0.1"
        assert stream.model == "simulator/default?endless=1"
        assert stream.endpoint == "/v1/chat/completions"
        assert stream.state == "streaming"
        assert stream.age_s == pytest.approx(2, abs=0.01)
        assert stream.first_content_s == pytest.approx(0.15, abs=0.05)
        assert stream.events > 10
        assert stream.bytes > 1000
        assert stream.attempts == 1
        assert stream.outcome is None
        visit.leave()
        await over(visit)
        assert await seen(w) == set()


async def test_keys_see_their_own_operators_all(autojump_clock: MockClock) -> None:
    """A key sees the streams that it started, an operator's key every stream."""
    async with world(env=KEYS) as w:
        for key in ("first-key", "second-key", "admin-key"):
            headers = {**bearer(key), "x-request-id": f"of-{key}"}
            ask(w, "simulator/endless", headers=headers)
        await wait_all_tasks_blocked()
        assert await seen(w, "first-key") == {"of-first-key"}
        assert await seen(w, "second-key") == {"of-second-key"}
        everything = {"of-first-key", "of-second-key", "of-admin-key"}
        assert await seen(w, "admin-key") == everything


async def test_a_cancel_ends_the_stream_at_once(autojump_clock: MockClock) -> None:
    """The stream's client gets `error` cancelled, the canceller what it did."""
    async with world(env=KEYS) as w:
        headers = {**bearer("first-key"), "x-request-id": "mine"}
        visit = ask(w, "simulator/default?endless=1", headers=headers)
        await trio.sleep(2)
        (stream,) = w.services.registry
        events = stream.events
        answer = await request(w, "DELETE", "/streams/mine", "first-key")
        assert answer.status == 200
        did = msgspec.json.decode(answer.body, type=Cancellation)
        assert did == Cancellation("mine", "cancelled", "streaming", events, 0.0)
        await over(visit)
        last = payloads(visit)[-1]
        assert last["error"]["metadata"]["error_type"] == "cancelled"
        assert w.record.outcome is Outcome.CANCELLED
        assert w.record.owner == key_id("first-key")
        w.assert_clean()


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions"])
async def test_a_cancel_reaches_a_stream_that_still_connects(
    path: str, autojump_clock: MockClock
) -> None:
    """Before upstream has answered there is no connection to time, but an end."""
    async with world() as w:
        w.reachable = False
        body = {"messages": [{"role": "user", "content": "hello"}]}
        visit = w.visit(body, path, headers={"x-request-id": "mine"})
        await trio.sleep(1)
        answer = await request(w, "DELETE", "/streams/mine")
        did = msgspec.json.decode(answer.body, type=Cancellation)
        assert did == Cancellation("mine", "cancelled", "connecting", 0, None)
        await over(visit)
        assert w.record.outcome is Outcome.CANCELLED
        w.assert_clean()


async def test_a_cancel_between_two_attempts_finds_upstream_closed(
    autojump_clock: MockClock,
) -> None:
    """A failed answer was closed before the cancel: no time passed, let alone less."""
    async with world() as w:
        visit = ask(
            w, "simulator/error-first?code=429", headers={"x-request-id": "mine"}
        )
        await trio.sleep(0.09)
        (stream,) = w.services.registry
        assert stream.upstream_closed_at is not None
        answer = await request(w, "DELETE", "/streams/mine")
        did = msgspec.json.decode(answer.body, type=Cancellation)
        assert did == Cancellation("mine", "cancelled", "waiting", 0, 0.0)
        await over(visit)
        assert w.record.cancel_latency_s == 0
        w.assert_clean()


async def test_others_streams_are_not_there(autojump_clock: MockClock) -> None:
    """404, as for an id that nobody has: whose ids there are is not to be found out."""
    async with world(env=KEYS) as w:
        headers = {**bearer("first-key"), "x-request-id": "mine"}
        ask(w, "simulator/endless", headers=headers)
        await wait_all_tasks_blocked()
        others = await request(w, "DELETE", "/streams/mine", "second-key")
        nobody = await request(w, "DELETE", "/streams/nobodys", "second-key")
        assert others.status == nobody.status == 404
        assert others.json()["message"] == nobody.json()["message"]
        assert (await request(w, "DELETE", "/streams/mine", "admin-key")).status == 200


async def test_streams_can_be_cancelled_while_the_server_drains(
    autojump_clock: MockClock,
) -> None:
    """What is live in a drain may be looked at and ended; only new work is refused."""
    async with world() as w:
        visit = ask(w, "simulator/endless", headers={"x-request-id": "mine"})
        await trio.sleep(1)
        w.services.registry.begin_drain()
        assert await seen(w) == {"mine"}
        assert (await request(w, "DELETE", "/streams/mine")).status == 200
        await over(visit)
        refused = ask(w)
        await over(refused)
        assert refused.status == 503

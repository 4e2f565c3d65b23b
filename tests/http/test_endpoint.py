"""An endpoint's two ways in, directly and through Quart, differ in nothing but CORS."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.world import Visit, World, world
from trio_ai_stream.server.limits import SLOWEST_BODY
from trio_ai_stream.wire.dialect import ParsedRequest
from trio_ai_stream.wire.record import Outcome

ORIGIN = "https://page.test"
TEXT = "a long conversation " * 50
WAYS = pytest.mark.parametrize(
    "headers", [{}, {"origin": ORIGIN}], ids=["direct", "through-quart"]
)


def env(**more: str) -> dict[str, str]:
    """Settings with which a request that has an origin goes through Quart."""
    return {"CORS_ALLOW_ORIGINS": ORIGIN, **more}


async def refused(w: World, body: Any, headers: dict[str, str], **more: Any) -> Visit:
    """Ask for a stream, and return the refusal."""
    visit = w.visit(body, headers=headers, **more)
    await visit.over.wait()
    allowed = visit.headers.get("access-control-allow-origin")
    assert allowed == headers.get("origin")
    w.assert_clean()
    return visit


@WAYS
async def test_both_ways_stream_alike(
    headers: dict[str, str], autojump_clock: MockClock
) -> None:
    """The same events under the same head, and one `stream ended` record."""
    async with world(env=env()) as w:
        visit = w.visit({"prompt": "x", "model": "simulator/echo"}, headers=headers)
        await visit.over.wait()
        assert (visit.status, visit.text) == (200, "x")
        assert visit.types == ["connected", "content", "done"]
        assert visit.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert visit.headers["cache-control"] == "no-cache, no-transform"
        assert visit.headers["x-accel-buffering"] == "no"
        assert len(w.records) == 1
        w.assert_clean()


@WAYS
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_past_the_limit_is_413(
    headers: dict[str, str], announced: bool, autojump_clock: MockClock
) -> None:
    """Whether the head says so or the bytes show it."""
    length = {"content-length": "101"} if announced else {}
    async with world(env=env(MAX_BODY_BYTES="100")) as w:
        visit = await refused(w, b"x" * 101, headers | length)
        assert (visit.status, visit.json()["error_type"]) == (413, "payload_too_large")


@WAYS
async def test_a_body_that_does_not_end_is_408(
    headers: dict[str, str], autojump_clock: MockClock
) -> None:
    """After READ_TIMEOUT_SECS, exactly."""
    async with world(env=env(READ_TIMEOUT_SECS="3")) as w:
        began = trio.current_time()
        visit = await refused(w, b"{", headers, more_body=True)
        assert (visit.status, visit.json()["error_type"]) == (408, "request_timeout")
        assert round(trio.current_time() - began, 3) == 3


async def test_what_came_of_a_body_puts_its_end_off(autojump_clock: MockClock) -> None:
    """By a second for each 8 KiB: two of them, and then nothing more."""
    async with world(env=env(READ_TIMEOUT_SECS="3")) as w:
        began = trio.current_time()
        visit = await refused(w, b" " * 2 * SLOWEST_BODY, {}, more_body=True)
        assert visit.status == 408
        assert trio.current_time() - began == 5


@WAYS
async def test_a_body_whose_time_the_server_bounds_is_waited_for(
    headers: dict[str, str], autojump_clock: MockClock
) -> None:
    """There is one judge of the time: with the server it is the server."""
    async with world(env=env(READ_TIMEOUT_SECS="3")) as w:
        more: dict[str, Any] = {"more_body": True, "limits_body_time": True}
        visit = w.visit(b"{", headers=headers, **more)
        await trio.sleep(60)
        assert visit.status is None
        visit.leave()
        await visit.over.wait()
        assert visit.status is None


@WAYS
async def test_a_body_that_is_not_said_to_be_json_is_415(
    headers: dict[str, str], autojump_clock: MockClock
) -> None:
    """The refusal names what came; parameters of the type are no matter."""
    async with world(env=env()) as w:
        visit = await refused(w, b"{}", headers | {"content-type": "text/plain; a=b"})
        assert visit.status == 415
        assert visit.json()["message"].endswith("got text/plain")


@WAYS
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "GZIP, br"])
async def test_a_compressed_body_is_415_that_says_so(
    headers: dict[str, str], encoding: str, autojump_clock: MockClock
) -> None:
    """It names the encoding, and `Accept-Encoding` says what is taken instead."""
    async with world(env=env()) as w:
        visit = await refused(w, b"\x1f\x8b", headers | {"content-encoding": encoding})
        assert visit.status == 415
        assert visit.headers["accept-encoding"] == "identity"
        assert f"got {encoding}" in visit.json()["message"]


@WAYS
async def test_all_bodies_together_have_a_bound(
    headers: dict[str, str], autojump_clock: MockClock
) -> None:
    """503 with `Retry-After` past MAX_BODIES_BYTES; an ended request counts no more."""
    limits = {"MAX_BODY_BYTES": "100", "MAX_BODIES_BYTES": "150"}
    async with world(env=env(**limits)) as w:
        first = w.visit(b"x" * 100, headers=headers, more_body=True)
        await trio.sleep(1)
        assert w.services.bodies.held == 100
        second = w.visit(b"x" * 51, headers=headers, more_body=True)
        await second.over.wait()
        assert (second.status, second.json()["error_type"]) == (503, "too_many_bodies")
        assert second.headers["retry-after"] == "1"
        first.leave()
        await first.over.wait()
        assert w.services.bodies.held == 0
        third = w.visit({"prompt": "x", "model": "simulator/echo"}, headers=headers)
        await third.over.wait()
        assert third.status == 200
        assert w.services.bodies.held == 0


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/chat", {"prompt": TEXT}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": TEXT}]}),
        ("/v1/responses", {"input": TEXT}),
    ],
)
@WAYS
async def test_a_stream_lets_go_of_its_body_once_its_answer_begins(
    path: str,
    fields: dict[str, Any],
    headers: dict[str, str],
    autojump_clock: MockClock,
) -> None:
    """Before that it may have to be asked for again; a stream of minutes needs none."""
    model = "simulator/fast?first_token_ms=2000&delay_ms=1000&chunks=9"
    more = {"model": model, "stream": True, "max_tokens": 99}
    body = fields if path == "/chat" else fields | more
    async with world(env=env(OPENROUTER_MODEL=model)) as w:
        visit = w.visit(body, path, headers=headers)
        await trio.sleep(1)
        (stream,) = w.services.registry
        assert TEXT.encode() in stream.request.body
        assert w.services.bodies.held > len(TEXT)
        await trio.sleep(3)
        assert stream.events
        assert (stream.request.body, w.services.bodies.held) == (b"", 0)
        kept = [one for one in gc.get_objects() if type(one) is ParsedRequest]
        assert not [one for one in kept if TEXT.encode() in one.body]
        await visit.over.wait()
        assert w.record.outcome is Outcome.COMPLETED
        assert w.services.bodies.held == 0
        w.assert_clean()


@WAYS
async def test_a_client_that_leaves_before_its_body_ends_is_dropped(
    headers: dict[str, str], autojump_clock: MockClock
) -> None:
    """The call ends at once, without an answer and without a stream."""
    async with world(env=env()) as w:
        visit = w.visit(b"{", headers=headers, more_body=True)
        visit.leave()
        began = trio.current_time()
        await visit.over.wait()
        assert (visit.status, trio.current_time() - began) == (None, 0)
        assert not w.records
        w.assert_clean()

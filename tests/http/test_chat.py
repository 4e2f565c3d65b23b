"""`POST /chat` before its stream: refusals, their status and shape, and the headers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.world import Visit, world
from trio_ai_stream.dialects.plain_chat import parse
from trio_ai_stream.upstream.openrouter import REJECTED_S
from trio_ai_stream.wire.dialect import RequestLimits

SEED_FIELDS = ["message", "code", "error_type", "request_id", "timestamp"]


async def answered(visit: Visit) -> Visit:
    """Wait for the end of a request."""
    with trio.fail_after(200):
        await visit.over.wait()
    return visit


REFUSALS: list[tuple[str, dict[str, Any], bytes, int, str]] = [
    ("/nowhere", {}, b"{}", 404, "not_found"),
    ("/chat", {"method": "GET"}, b"", 405, "method_not_allowed"),
    ("/health", {}, b"", 405, "method_not_allowed"),
    ("/chat", {"headers": {"content-type": "text/plain"}}, b"hi", 415,
     "unsupported_media_type"),
    ("/chat", {}, b"not json", 400, "invalid_request"),
    ("/chat", {}, b'{"prompt":"%s"}' % (b"x" * 4001), 413, "payload_too_large"),
    ("/chat", {}, b'{"prompt":"%s"}' % (b"x" * 1_100_000), 413, "payload_too_large"),
    ("/chat", {"headers": {"content-length": "99999999"}}, b"{}", 413,
     "payload_too_large"),
]  # fmt: skip


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
@pytest.mark.parametrize(("path", "options", "body", "status", "error_type"), REFUSALS)
async def test_every_refusal_has_its_status_and_the_one_shape(
    path: str,
    options: dict[str, Any],
    body: bytes,
    status: int,
    error_type: str,
    accept: str,
    autojump_clock: MockClock,
) -> None:
    """True status; the Go server's five fields, as JSON or as one SSE event."""
    headers = {"accept": accept, **options.get("headers", {})}
    async with world() as w:
        options = {**options, "headers": headers}
        visit = await answered(w.visit(body, path=path, **options))
        assert visit.status == status
        assert visit.headers["x-request-id"]
        if accept == "*/*":
            assert list(visit.json()) == SEED_FIELDS
            assert visit.json()["code"] == status
            assert visit.json()["error_type"] == error_type
            assert visit.json()["request_id"] == visit.headers["x-request-id"]
        else:
            (event,) = visit.events
            assert visit.headers["content-type"].startswith("text/event-stream")
            assert (event["type"], event["code"]) == ("error", status)
            assert event["error_type"] == error_type
        w.assert_clean()


@pytest.mark.parametrize(
    ("given", "taken"),
    [("abc.DEF_1-2", True), ("x" * 128, True), ("x" * 129, False), ("a b", False),
     ("", False), ('a"b', False), ("ä", False)],
)  # fmt: skip
async def test_a_clients_request_id_is_taken_only_if_it_is_safe(
    given: str, taken: bool, autojump_clock: MockClock
) -> None:
    """1-128 of [A-Za-z0-9._-] is taken, repeated everywhere and sent upstream."""
    async with world() as w:
        visit = w.visit({"prompt": "x"}, headers={"x-request-id": given})
        await answered(visit)
        used = visit.headers["x-request-id"]
        assert (used == given) is taken
        assert {event["request_id"] for event in visit.events} == {used}
        assert [entry.request_id for entry in w.simulator.ledger.find()] == [used]
        assert w.record.request_id == used


async def test_one_request_id_names_one_request(autojump_clock: MockClock) -> None:
    """Of two requests in the same instant under one id, the second gets another."""
    async with world() as w:
        headers = {"x-request-id": "mine"}
        visits = [w.visit({"prompt": "x"}, headers=headers) for _ in range(2)]
        for visit in visits:
            await answered(visit)
            assert visit.status == 200
        assert sum(visit.headers["x-request-id"] == "mine" for visit in visits) == 1
        again = await answered(w.visit({"prompt": "x"}, headers=headers))
        assert again.headers["x-request-id"] == "mine"
        assert not w.services.request_ids


async def test_a_live_streams_request_id_is_not_given_twice(
    autojump_clock: MockClock,
) -> None:
    """A second request with the id of a live stream gets one of its own."""
    async with world() as w:
        first = w.chat("simulator/silent")
        await trio.sleep(1)
        (stream,) = w.services.registry
        second = w.visit({"prompt": "x"}, headers={"x-request-id": stream.request_id})
        await answered(second)
        assert second.headers["x-request-id"] != stream.request_id
        assert second.types[-1] == "done"
        first.leave()


async def test_past_the_permits_a_stream_is_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    """503 with Retry-After while all permits are held; the next one gets through."""
    async with world(permits=1) as w:
        first = w.chat("simulator/silent")
        await trio.sleep(1)
        refused = await answered(w.chat())
        assert refused.status == 503
        assert refused.json()["error_type"] == "too_many_streams"
        assert int(refused.headers["retry-after"]) >= 1
        first.leave()
        await answered(first)
        assert (await answered(w.chat())).types[-1] == "done"
        w.assert_clean()


async def test_a_draining_server_refuses_and_says_so(autojump_clock: MockClock) -> None:
    """During the drain: 503 shutting_down, `/ready` 503, `/health` 200."""
    async with world() as w:
        w.services.registry.begin_drain()
        chat = await answered(w.chat())
        assert (chat.status, chat.json()["error_type"]) == (503, "shutting_down")
        assert chat.headers["retry-after"]
        ready = await answered(w.visit(b"", path="/ready", method="GET"))
        assert (ready.status, ready.json()["status"]) == (503, "not ready")
        health = await answered(w.visit(b"", path="/health", method="GET"))
        assert (health.status, health.json()["status"]) == (200, "ok")


async def test_ready_says_when_the_key_was_rejected(autojump_clock: MockClock) -> None:
    """A 401 of upstream makes `/ready` 503 until a request is accepted again.

    Or for a while only: behind a balancer no request may come while it is not ready.
    """
    async with world() as w:
        await answered(w.chat("simulator/default?status=401"))
        ready = await answered(w.visit(b"", path="/ready", method="GET"))
        assert ready.status == 503
        assert "OPENROUTER_API_KEY" in ready.json()["reasons"][0]
        await answered(w.chat("simulator/fast"))
        ready = await answered(w.visit(b"", path="/ready", method="GET"))
        assert ready.status == 200
        await answered(w.chat("simulator/default?status=401"))
        await trio.sleep(REJECTED_S)
        ready = await answered(w.visit(b"", path="/ready", method="GET"))
        assert ready.status == 200


async def test_a_streams_headers_keep_it_streaming_and_safe(
    autojump_clock: MockClock,
) -> None:
    """No cache, no buffering, security headers, nothing that HTTP/2 forbids."""
    async with world() as w:
        visit = await answered(w.chat("simulator/fast"))
        headers = visit.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-cache, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["ratelimit-limit"] == "1000"
        forbidden = {"connection", "transfer-encoding", "keep-alive", "upgrade"}
        assert not forbidden & set(headers)


async def test_cors_is_for_the_origins_that_are_allowed(
    autojump_clock: MockClock,
) -> None:
    """An allowed origin is named and may read our fields; another gets no header."""
    env = {"CORS_ALLOW_ORIGINS": "https://good.example"}
    async with world(env=env) as w:
        for origin, allowed in [("https://good.example", True), ("https://bad", False)]:
            visit = w.visit({"prompt": "x"}, headers={"origin": origin})
            await answered(visit)
            found = visit.headers.get("access-control-allow-origin")
            assert found == (origin if allowed else None)
            names = visit.headers.get("access-control-expose-headers", "").lower()
            told = {n for n in visit.headers if n.startswith(("ratelimit", "x-req"))}
            assert len(told) == 6
            told |= {"retry-after", "x-should-retry"}
            assert (told <= set(names.split(", "))) == allowed
        preflight = w.visit(
            b"",
            method="OPTIONS",
            headers={
                "origin": "https://good.example",
                "access-control-request-method": "POST",
                "access-control-request-headers": "content-type",
            },
        )
        await answered(preflight)
        assert preflight.status == 200
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-max-age"] == "3600"


@pytest.mark.parametrize(
    "text", ["a\nb\r\nc", "\u2028\u2029\u0085", '😀 é \\ "q"', "\t"]
)
async def test_content_survives_the_whole_way(
    text: str, autojump_clock: MockClock
) -> None:
    """What the model says arrives as it was said, whatever its characters."""
    async with world() as w:
        visit = w.visit({"prompt": text + "x", "model": "simulator/echo"})
        await answered(visit)
        assert visit.text == text + "x"
        assert visit.types[-1] == "done"


async def test_reasoning_is_shown_only_to_those_who_ask(
    autojump_clock: MockClock,
) -> None:
    """`type: reasoning` needs include_reasoning; without it nothing of it leaves."""
    async with world() as w:
        silent = await answered(w.chat("simulator/reasoning"))
        assert "reasoning" not in silent.types
        asked = await answered(w.chat("simulator/reasoning", include_reasoning=True))
        assert "reasoning" in asked.types
        assert asked.text == silent.text


async def test_tool_calls_are_shown_only_to_those_who_ask(
    autojump_clock: MockClock,
) -> None:
    """`type: tool_call` needs include_tool_calls; its pieces add up to the calls."""
    async with world() as w:
        silent = await answered(w.chat("simulator/agent"))
        assert "tool_call" not in silent.types
        asked = await answered(w.chat("simulator/agent", include_tool_calls=True))
        assert asked.text == silent.text
        pieces = [e for e in asked.events if e["type"] == "tool_call"]
        for index in (0, 1):
            own = [one for one in pieces if one["index"] == index]
            assert [one["name"] for one in own if one["name"]] == ["get_weather"]
            assert own[0]["id"]
            assert "location" in json.loads("".join(one["arguments"] for one in own))
        assert asked.events[-1]["finish_reason"] == "tool_calls"


def test_upstream_gets_what_was_asked_and_nothing_more() -> None:
    """Options that the client left out are not invented; the rest is passed on."""
    asked = {"prompt": "x", "temperature": 0.5, "stop": ["y"], "seed": 7}
    request = parse(json.dumps(asked).encode(), RequestLimits("m", 9, 9))
    assert json.loads(request.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "stream": True,
        "temperature": 0.5,
        "stop": ["y"],
        "seed": 7,
    }

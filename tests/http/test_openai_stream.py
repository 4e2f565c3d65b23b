"""`POST /v1/chat/completions` with `stream: true`, in memory and on a mock clock."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.completions import (
    COMPLETIONS,
    DONE,
    ask,
    error_of,
    over,
    payloads,
    text_of,
)
from tests.support.world import BUDGETS, world
from trio_ai_stream.dialects.completions import frames
from trio_ai_stream.wire.events import Comment, Raw
from trio_ai_stream.wire.record import Basis, Outcome


async def test_chunks_pass_through_and_done_is_last(autojump_clock: MockClock) -> None:
    """Each chunk is upstream's, fields that OpenAI lacks included; `[DONE]` ends."""
    async with world() as w:
        visit = ask(w, max_tokens=5)
        await over(visit)
        *chunks, last = payloads(visit)
        assert visit.status == 200
        assert visit.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert last == DONE
        assert visit.ended.is_set()
        assert {chunk["provider"] for chunk in chunks} == {"Simulator"}
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"]["completion_tokens"] == 5
        assert w.record.outcome is Outcome.COMPLETED
        assert w.record.endpoint == COMPLETIONS
        assert w.record.bill.completion_tokens == 5
        w.assert_clean()


async def test_unknown_fields_reach_upstream_and_the_answer_depends_on_them(
    autojump_clock: MockClock,
) -> None:
    """Tools, which this server knows nothing of, pass through in both directions."""
    async with world() as w:
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        function = {"name": "weather", "parameters": schema}
        tools = [{"type": "function", "function": function}]
        visit = ask(w, "simulator/tools", tools=tools)
        await over(visit)
        *chunks, _ = payloads(visit)
        calls = [
            call["function"]
            for chunk in chunks
            for choice in chunk["choices"]
            for call in choice["delta"].get("tool_calls", ())
        ]
        assert calls[0]["name"] == "weather"
        arguments = json.loads("".join(call.get("arguments", "") for call in calls))
        assert set(arguments) == {"city"}
        assert w.record.finish_reason == "tool_calls"


async def test_comments_of_upstream_become_our_heartbeat(
    autojump_clock: MockClock,
) -> None:
    """Upstream's comments are dropped; HEARTBEAT_SECS of silence is one of ours."""
    async with world() as w:
        visit = ask(w, "simulator/fast?comments_ms=9000&comment_every_ms=500&chunks=3")
        await over(visit)
        assert b"OPENROUTER" not in visit.body
        assert visit.body.count(b": heartbeat\n\n") == 2
        assert payloads(visit)[-1] == DONE


async def test_the_head_waits_for_upstreams_headers(autojump_clock: MockClock) -> None:
    """No status is written while a refusal is still possible."""
    async with world() as w:
        visit = ask(w, "simulator/fast?headers_ms=3000&chunks=2")
        await trio.sleep(2.9)
        before = visit.status
        await over(visit)
        assert (before, visit.status) == (None, 200)
        assert visit.body.count(b"heartbeat") == 0


async def test_a_sign_of_life_may_be_an_empty_chunk(
    autojump_clock: MockClock,
) -> None:
    """For clients that wait for events, if the settings ask for it."""
    async with world(env={"HEARTBEAT_EVENTS": "1"}) as w:
        visit = ask(w, "simulator/fast?chunks=1&headers_ms=5000")
        await over(visit)
        first = payloads(visit)[0]
        assert first["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]
        assert b": heartbeat" not in visit.body


async def test_a_heartbeat_commits_the_status(autojump_clock: MockClock) -> None:
    """After HEARTBEAT_SECS without headers the client is shown life under 200."""
    async with world() as w:
        visit = ask(w, "simulator/fast?headers_ms=5000&status=404")
        await trio.sleep(4.5)
        assert visit.status == 200
        assert visit.arrived == [(BUDGETS.heartbeat_s, b": heartbeat\n\n")]
        await over(visit)
        (payload,) = payloads(visit)
        assert payload["error"]["metadata"]["error_type"] == "not_found"
        assert w.record.outcome is Outcome.UPSTREAM_REJECTED
        w.assert_clean()


BEFORE: list[tuple[str, int, str, str]] = [
    ("simulator/bad-request", 400, "invalid_request_error", "invalid_request"),
    ("simulator/no-credit", 402, "insufficient_quota", "upstream_payment_required"),
    ("simulator/forbidden", 403, "permission_error", "permission_denied"),
    ("simulator/not-found", 404, "not_found_error", "not_found"),
    ("simulator/timeout", 408, "invalid_request_error", "upstream_timeout"),
    ("simulator/too-large", 413, "invalid_request_error", "payload_too_large"),
    ("simulator/unprocessable", 422, "invalid_request_error", "unprocessable"),
    ("simulator/at-capacity", 429, "rate_limit_error", "upstream_rate_limited"),
    ("simulator/server-error", 500, "server_error", "upstream_error"),
    ("simulator/bad-gateway", 502, "server_error", "upstream_unavailable"),
    ("simulator/overloaded", 503, "server_error", "upstream_overloaded"),
    ("simulator/edge-timeout", 524, "server_error", "upstream_timeout"),
    ("simulator/provider-overloaded", 529, "server_error", "upstream_overloaded"),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("model", "status", "kind", "code"), BEFORE)
async def test_a_refusal_has_upstreams_status(
    model: str,
    status: int,
    kind: str,
    code: str,
    stream: bool,
    autojump_clock: MockClock,
) -> None:
    """Before the stream begins, upstream's refusal is the response, streamed or not.

    A heartbeat, which costs the status, is not due while the retries wait.
    """
    budgets = dataclasses.replace(BUDGETS, heartbeat_s=15)
    async with world(budgets=budgets) as w:
        visit = ask(w, model, stream=stream)
        await over(visit)
        assert visit.status == status
        assert visit.headers["content-type"] == "application/json"
        error = error_of(visit)
        assert (error["type"], error["metadata"]["error_type"]) == (kind, code)
        retryable = status in {408, 429, 502, 503, 504, 524, 529}
        retryable &= w.record.attempts == 1  # else it has been retried enough
        assert visit.headers["x-should-retry"] == str(retryable).lower()
        assert w.record.outcome is Outcome.UPSTREAM_REJECTED
        w.assert_clean()


@pytest.mark.parametrize("stream", [True, False])
async def test_our_key_refused_is_not_the_callers(
    stream: bool, autojump_clock: MockClock
) -> None:
    """Upstream's 401 is about our key: the caller gets 502, and is not to retry."""
    async with world() as w:
        visit = ask(w, "simulator/unauthorized", stream=stream)
        await over(visit)
        assert visit.status == 502
        assert "www-authenticate" not in visit.headers
        assert visit.headers["x-should-retry"] == "false"
        assert error_of(visit)["metadata"]["error_type"] == "upstream_authentication"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_document_under_200_is_an_error(
    stream: bool, autojump_clock: MockClock
) -> None:
    """Upstream's JSON error under status 200 has the status that its code names.

    It is a refusal, whatever was asked for, as it were under that status.
    """
    async with world() as w:
        visit = ask(w, "simulator/error-200-json", stream=stream)
        await over(visit)
        assert visit.status == 502
        assert error_of(visit)["metadata"]["error_type"] == "upstream_unavailable"
        assert w.record.outcome is Outcome.UPSTREAM_REJECTED
        w.assert_clean()


async def test_an_error_event_before_any_output_is_a_refusal(
    autojump_clock: MockClock,
) -> None:
    """It says the same as the status or the document would; nothing was generated."""
    async with world() as w:
        visit = ask(w, "simulator/error-first?code=402")
        await over(visit)
        assert w.record.outcome is Outcome.UPSTREAM_REJECTED
        assert w.record.bill.basis is Basis.NONE
        w.assert_clean()


async def test_retry_after_is_passed_on(autojump_clock: MockClock) -> None:
    """A wait that is too long for us to wait is the client's to know."""
    async with world() as w:
        visit = ask(w, "simulator/at-capacity")
        await over(visit)
        assert visit.headers["retry-after"] == "40"
        assert w.record.attempts == 1


async def test_upstream_that_heals_is_asked_again(autojump_clock: MockClock) -> None:
    """What upstream refused is sent again before anything was written."""
    async with world() as w:
        visit = ask(w, "simulator/flaky")
        await over(visit)
        assert visit.status == 200
        assert payloads(visit)[-1] == DONE
        assert w.record.attempts == 3


CHUNK = ("id", "object", "created", "model", "choices")
WITHIN: list[tuple[str, Outcome, str]] = [
    ("simulator/error", Outcome.UPSTREAM_FAILED, "upstream_unavailable"),
    ("simulator/error-string-code", Outcome.UPSTREAM_FAILED, "upstream_error"),
    ("simulator/error-empty-choices", Outcome.UPSTREAM_FAILED, "upstream_rate_limited"),
    ("simulator/error-bare", Outcome.UPSTREAM_FAILED, "upstream_unavailable"),
    ("simulator/drop", Outcome.UPSTREAM_FAILED, "upstream_failed"),
    ("simulator/reset", Outcome.UPSTREAM_FAILED, "upstream_failed"),
    ("simulator/truncated", Outcome.UPSTREAM_FAILED, "upstream_failed"),
    ("simulator/bad-json", Outcome.UPSTREAM_FAILED, "upstream_failed"),
    ("simulator/silent", Outcome.STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
    ("simulator/endless", Outcome.DEADLINE_EXCEEDED, "deadline_exceeded"),
    ("simulator/no-token", Outcome.FIRST_TOKEN_TIMEOUT, "first_token_timeout"),
]


@pytest.mark.parametrize(("model", "outcome", "code"), WITHIN)
async def test_a_failure_in_the_stream_is_its_last_event(
    model: str, outcome: Outcome, code: str, autojump_clock: MockClock
) -> None:
    """After 200 an error is one chunk, the last one, and no `[DONE]` follows it."""
    async with world() as w:
        visit = ask(w, model)
        await over(visit)
        assert visit.status == 200
        *chunks, last = payloads(visit)
        assert not any("error" in chunk for chunk in chunks)
        if chunks:
            assert all(last[k] == chunks[0][k] for k in ("id", "object", "model"))
        assert last["choices"][0]["finish_reason"] == "error"
        assert set(last) == {*CHUNK, "error"}
        assert last["error"]["metadata"]["error_type"] == code
        assert w.record.outcome is outcome
        assert w.record.told
        assert visit.ended.is_set()
        w.assert_clean()


async def test_the_first_token_budget_holds_before_headers(
    autojump_clock: MockClock,
) -> None:
    """A silent upstream has FIRST_TOKEN_TIMEOUT_SECS, heartbeats or not."""
    async with world() as w:
        visit = ask(w, "simulator/no-answer")
        assert await over(visit) == pytest.approx(BUDGETS.first_token_s)
        assert (
            payloads(visit)[-1]["error"]["metadata"]["error_type"]
            == "first_token_timeout"
        )
        w.assert_clean()


PHASES: list[tuple[str, float]] = [
    ("simulator/no-answer", 1.0),
    ("simulator/no-token", 1.0),
    ("simulator/endless", 1.0),
    ("simulator/silent", 5.0),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("model", "after"), PHASES)
async def test_a_client_that_leaves_ends_upstream_at_once(
    model: str, after: float, stream: bool, autojump_clock: MockClock
) -> None:
    """In every phase, streamed or not, upstream's connection is closed at once."""
    async with world() as w:
        visit = ask(w, model, stream=stream)
        await trio.sleep(after)
        assert w.transport.statistics().live == 1
        visit.leave()
        left = trio.current_time()
        assert await over(visit) == left
        assert w.record.outcome is Outcome.CLIENT_DISCONNECTED
        w.assert_clean()
        ended = await w.simulator.ledger.wait_for(None, "ended")
        assert ended.outcome == "client_gone"
        assert ended.marks["client_gone"].at == left


@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_while_upstream_is_dialled(
    stream: bool, autojump_clock: MockClock
) -> None:
    """A connection that is not there yet is given up with its client."""
    async with world() as w:
        w.reachable = False
        visit = ask(w, stream=stream)
        await trio.sleep(1)
        visit.leave()
        assert await over(visit) == 1
        assert w.record.outcome is Outcome.CLIENT_DISCONNECTED
        w.assert_clean()


@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_while_a_retry_is_waited_for(
    stream: bool, autojump_clock: MockClock
) -> None:
    """Who left while upstream's Retry-After runs causes no further request."""
    async with world() as w:
        visit = ask(w, "simulator/rate-limited", stream=stream)
        await trio.sleep(1)
        visit.leave()
        assert await over(visit) == 1
        await trio.sleep(10)
        assert w.simulator.ledger.total == 1
        assert w.record.outcome is Outcome.CLIENT_DISCONNECTED
        w.assert_clean()


async def test_a_block_is_one_write(autojump_clock: MockClock) -> None:
    """Chunks that arrive together leave together."""
    async with world() as w:
        visit = ask(w, max_tokens=200)
        await over(visit)
        assert text_of(visit)
        assert len(payloads(visit)) > 40
        assert len(visit.arrived) <= 4


def test_multi_line_json_stays_one_event() -> None:
    """A payload that upstream laid out over lines is a `data` field for each line."""
    items: list[Any] = [Raw(b'{"a":1}'), Comment(), Raw(b'{\n"b":2}'), "text"]
    assert frames(items) == (b'data: {"a":1}\n\ndata: {\ndata: "b":2}\n\n', 2)
    assert frames([Comment(), "text"]) == (b"", 0)
